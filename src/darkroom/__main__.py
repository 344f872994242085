"""``python -m darkroom`` is the command ``darkroom``."""

import os


def main() -> None:
    """Run the command line; Ctrl-C ends quietly even while it is being imported."""
    try:
        from darkroom.app.cli import main as run
    except KeyboardInterrupt:
        os._exit(130)
    run()


if __name__ == "__main__":
    main()
