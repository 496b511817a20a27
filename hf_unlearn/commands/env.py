"""`hf-unlearn env`: versions and hardware, for bug reports."""

from hf_unlearn.run.line_parser import LineParser


def env(argv: list[str] | None = None) -> None:
    """Print them, one a line. Raises `UserError` for an argument: there are none."""
    LineParser(prog="hf-unlearn env", description="Versions and hardware, for bug reports.").parse_args(argv)

    import torch

    from hf_unlearn.report.evidence import environment

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    for name, value in environment(seed=None, device=device).items():
        if isinstance(value, dict):
            value = ", ".join(f"{package} {version}" for package, version in value.items())
        if name != "seed":
            print(f"{name}: {value}")
