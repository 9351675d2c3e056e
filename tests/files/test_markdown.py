"""Paragraphs of written pages."""

from scanmix.files.markdown import WIDTH, wrapped


def test_a_paragraph_has_lines_of_at_most_the_width_and_the_same_words() -> None:
    text = "- " + "some words and more " * 20
    lines = wrapped(text, "  ").splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= WIDTH
    assert all(line.startswith("  ") for line in lines[1:])
    assert " ".join(lines).split() == text.split()


def test_no_line_begins_like_an_item_of_a_list_or_with_a_percent_sign() -> None:
    for end in ("seeds 0, 1, 2. Then more", "at 49 % of them", "this - or that", "a + b", "see # here"):
        for before in range(80, 120):
            lines = wrapped("x" * before + f" {end}").splitlines()
            assert not any(line.startswith(("2. ", "% ", "- ", "+ ", "# ")) for line in lines)


def test_a_command_is_not_broken() -> None:
    command = "`scanmix evaluate RUN --data ilsvrc12:50`"
    assert all(command in wrapped("x" * before + f" then {command}.") for before in range(60, 120))
