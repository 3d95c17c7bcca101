"""`python -m milanx`."""

from milanx.cli import app

if __name__ == "__main__":
    app(prog_name="milanx")
