"""`hf-unlearn demo llm`: a small chat model learns about writers who do not exist, and forgets one of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files

from hf_unlearn.run.line_parser import LineParser

KINDS = ("llm",)


@contextmanager
def demo_arguments(argv: list[str] | None = None) -> Iterator[list[str]]:
    """The arguments of `train` that the demo is; the model is there, fetched where it must be. Raises `UserError`."""
    parser = LineParser(
        prog="hf-unlearn demo",
        description="Fine-tune a chat model of 135 M weights on a few invented writers, forget one of them through "
        "LoRA, and show the answers before, after, and of a model that never read of her.",
        epilog="Every argument of hf-unlearn train can be added, e.g. --retrain 2 or --output_dir FOLDER.",
        allow_abbrev=False,
    )
    parser.add_argument("kind", choices=KINDS, metavar="llm")
    parser.add_argument("--model", help="folder or Hub name of a chat model in place of SmolLM2-135M-Instruct")
    given, rest = parser.parse_known_args(argv)

    from hf_unlearn.models.chat_model import small_chat_model
    from hf_unlearn.run.recipe_cache import default_cache_dir

    model = given.model or str(small_chat_model(default_cache_dir()))
    with as_file(files("hf_unlearn") / "commands" / "templates" / f"demo_{given.kind}.yaml") as config:
        yield ["--config", str(config), "--original_model", model, *rest]
