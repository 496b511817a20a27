"""`hf-unlearn push FOLDER --hub_model_id ID`: a finished output folder to the Hub."""

from hf_unlearn.hub import upload
from hf_unlearn.run.line_parser import LineParser


def push(argv: list[str] | None = None) -> None:
    """`hf-unlearn push FOLDER --hub_model_id ID`. Raises `UserError`."""
    parser = LineParser(prog="hf-unlearn push", description="Push a finished output folder to the Hub.")
    parser.add_argument("folder", help="the --output_dir of a finished run")
    parser.add_argument("--hub_model_id", required=True, help="name or owner/name of the repository")
    parser.add_argument("--hub_private_repo", action="store_true", default=None, help="make it a private one")
    parser.add_argument("--hub_revision", help="an existing branch (default: main)")
    parser.add_argument(
        "--push_adapter", action="store_true", help="push an adapter that gives the rows back when it is switched off"
    )
    given = parser.parse_args(argv)
    url = upload.push(
        given.folder,
        given.hub_model_id,
        private=given.hub_private_repo,
        revision=given.hub_revision,
        push_adapter=given.push_adapter,
    )
    print(f"pushed to {url}")
