"""The console script, and python -m verify_audit."""

import gc
import signal


def main() -> None:
    """Run the command line.

    Ctrl-C ends the program as it ends any other, at once and without a word: nothing is half done by a
    program that only reads. It is set before the imports, in which it would else leave a traceback.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # A run is short and keeps what it makes: looking for garbage in it is a third of its time.
    gc.disable()
    from verify_audit.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
