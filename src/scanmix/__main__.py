"""What `scanmix` and `python -m scanmix` start: the command line, and an end in one word when it is interrupted."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that was typed; Ctrl-C ends it with code 130, in its first instants, too."""
    try:
        for stream in (sys.stdout, sys.stderr):  # a name that is no UTF-8 is no reason to stop
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        from scanmix.cli import app  # takes a moment, in which people change their minds

        app(prog_name="scanmix")
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
