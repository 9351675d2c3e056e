"""`python -m scanmix`: the command line where the `scanmix` script is not on the path."""

from scanmix.cli import app

if __name__ == "__main__":
    app(prog_name="scanmix")
