"""The command `opsin`: train, predict, info and run. Imports the engine only when a command needs it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

_EXIT_SIGNAL = 128

# Options of `opsin train` that are fields of TrainConfig; the default None means "as the data set has it".
_TRAIN_OPTIONS: tuple[tuple[str, Any, str], ...] = (
    ("model", str, "digits_resnet, small_resnet or small_cnn"),
    ("epochs", int, "passes over the training part"),
    ("batch-size", int, "images per step"),
    ("optimizer", str, "sgd (Nesterov) or adamw"),
    ("lr", float, "peak learning rate of the one-cycle schedule"),
    ("momentum", float, "momentum of sgd"),
    ("weight-decay", float, "weight decay"),
    ("warmup", float, "share of the steps before the peak"),
    ("label-smoothing", float, "label smoothing"),
    ("shift", int, "random shifts by up to so many pixels"),
    ("image-size", int, "side length, --data folder alone"),
    ("channels", int, "1 grey or 3 RGB, --data folder alone"),
    ("seed", int, "seed of split, weights, order and augmentation (default 0)"),
    ("limit", int, "at most so many images of either part, for a quick try"),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="opsin", description="Train and use image classifiers with Opsin.")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--cmake-dir", action="store_true", help="print the folder for CMAKE_PREFIX_PATH")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train a classifier",
        description="Train a classifier into a folder: checkpoint, metrics, plots. "
        "Ctrl-C leaves a run that --resume continues to the same bits.",
    )
    train.add_argument("--data", help="digits (default), mnist, cifar10, cifar100 or folder")
    train.add_argument("--root", help="folder with the files of the data set")
    train.add_argument("--out", type=Path, help="folder of the run (default: runs/DATA)")
    for name, kind, text in _TRAIN_OPTIONS:
        train.add_argument(f"--{name}", type=kind, help=text)
    train.add_argument("--flip", action=argparse.BooleanOptionalAction, help="random mirroring")
    train.add_argument(
        "--threads", type=int, help="threads of the engine (default: all cores; changes no result)"
    )
    train.add_argument("--no-plots", action="store_true", help="write no pictures")
    existing = train.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="continue the run in --out")
    existing.add_argument("--overwrite", action="store_true", help="replace the run in --out")

    predict = commands.add_parser("predict", help="classify images", description="Classify image files.")
    predict.add_argument("images", nargs="+", type=Path, help="image files")
    predict.add_argument(
        "--run", type=Path, default=Path("runs/digits"), help="folder of a run, or its model.safetensors"
    )
    predict.add_argument("--top", type=int, default=1, help="classes to show per image (default 1)")
    predict.add_argument(
        "--invert", action="store_true", help="the images are dark on light, the training was not"
    )
    predict.add_argument("--json", action="store_true", help="one JSON object per image")

    info = commands.add_parser(
        "info", help="versions, processor, threads", description="What a bug report needs."
    )
    info.add_argument("--json", action="store_true", help="as JSON")

    run = commands.add_parser(
        "run", help="run a recipe", description="Run a recipe; without a name, list them."
    )
    run.add_argument("name", nargs="?", help="the recipe")
    run.add_argument("arguments", nargs=argparse.REMAINDER, help="its own arguments")
    return parser


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of TrainConfig that the command line sets."""
    names = ["data", "root", "flip", *(name.replace("-", "_") for name, _, _ in _TRAIN_OPTIONS)]
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _train(options: argparse.Namespace) -> int:
    from opsin import train

    given = _given(options)
    out: Path = options.out or Path("runs") / given.get("data", "digits")
    if options.resume:
        config = train.saved_config(out)
        root = given.pop("root", config.root)
        different = {name: value for name, value in given.items() if getattr(config, name) != value}
        if different:
            name, value = next(iter(different.items()))
            raise ValueError(
                f"train: expected --resume with the options of the run, got {name}={value!r} where it has "
                f"{getattr(config, name)!r} (leave the option out, or start a new run in another --out)"
            )
        config = replace(config, root=root)
    else:
        config = replace(train.defaults(given.get("data", "digits")), **given)
    if options.threads is not None:
        import opsin

        opsin.set_num_threads(options.threads)
    try:
        result = train.train_run(
            config, out, resume=options.resume, overwrite=options.overwrite, progress=train.console()
        )
    except train.Interrupted as stop:
        print(f"{stop}\nopsin train --resume --out {out}", file=sys.stderr)
        return _EXIT_SIGNAL + stop.signum
    if not options.no_plots:
        from opsin.train.pictures import write_pictures

        try:
            samples = write_pictures(result, out)
        except ImportError as error:
            print(f"no pictures: {error}", file=sys.stderr)
        else:
            if samples:
                print(f"try: opsin predict --run {out} {samples[0]}")
    print(f"{result.seconds:.1f} s of training, files in {out}")
    print(f"test accuracy {100 * result.accuracy:.1f} %")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from opsin.train.classifier import Classifier, top

    if options.top < 1:
        raise ValueError(f"predict: expected --top of at least 1, got {options.top} (1 shows the best class)")
    classifier = Classifier.load(options.run)
    classes = classifier.facts.classes
    failed = False
    width = max(len(str(path)) for path in options.images)
    for path in options.images:
        try:
            image = classifier.read(path, options.invert)
        except OSError as error:
            # The others can still be classified.
            print(f"error: {error}", file=sys.stderr)
            failed = True
            continue
        best = top(classifier.probabilities(image[None])[0], options.top)
        if options.json:
            ranked = [{"class": classes[index], "probability": share} for index, share in best]
            print(json.dumps({"image": str(path), "predictions": ranked}), flush=True)
        else:
            ranking = "  ".join(f"{classes[index]} ({100 * share:.1f} %)" for index, share in best)
            print(f"{path!s:<{width}}  {ranking}", flush=True)
    return 1 if failed else 0


def _info(options: argparse.Namespace) -> int:
    from opsin.info import as_text, collect

    facts = collect()
    print(json.dumps(facts, indent=2) if options.json else as_text(facts))
    return 0


def _run(options: argparse.Namespace) -> int:
    import pkgutil
    from importlib import import_module

    from opsin import recipes

    names = sorted(module.name for module in pkgutil.iter_modules(recipes.__path__) if module.name[0] != "_")
    if options.name is None:
        for name in names:
            text = import_module(f"opsin.recipes.{name}").__doc__ or ""
            print(f"{name:<16} {text.strip().splitlines()[0]}")
        return 0
    if options.name not in names:
        raise ValueError(
            f"run: expected one of {', '.join(names)}, got {options.name!r} (`opsin run` lists them)"
        )
    return int(import_module(f"opsin.recipes.{options.name}").main(options.arguments))


def _dispatch(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.cmake_dir:
        from opsin._cmake import cmake_dir

        print(cmake_dir())
        return 0
    if options.version:
        import opsin

        print(f"opsin {opsin.__version__}")
        return 0
    commands = {"train": _train, "predict": _predict, "info": _info, "run": _run}
    if options.command is None:
        parser.print_help()
        return 2
    return commands[options.command](options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 1 for an error (one line on standard error), or 128 + signal."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        code = _dispatch(parser, options)
        # Here rather than at exit, where a reader that went away would be a complaint of Python's own.
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _EXIT_SIGNAL + signal.SIGINT
    except BrokenPipeError:
        # The reader of a pipe went away; without this Python complains once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, RuntimeError, TypeError, ImportError, MemoryError) as error:
        if options.traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
