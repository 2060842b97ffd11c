"""`metanlp …`, `python -m metanlp …`, and `torchrun … -m metanlp compare` on several processes."""

from metanlp.core.signals import stoppable


def main() -> None:
    """The console script."""
    with stoppable():  # also while the commands are imported
        from metanlp.cli.commands import main

        main()


if __name__ == "__main__":
    main()
