"""Runnable recipes, one per file: `opsin run NAME`. Each has `main(arguments) -> exit code`."""
