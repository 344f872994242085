"""``python -m darkroom`` is the command ``darkroom``."""

from darkroom.app.cli import main

if __name__ == "__main__":
    main()
