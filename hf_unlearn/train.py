"""Unlearn rows from a model and write the evidence: `accelerate launch hf_unlearn/train.py --config FILE`."""

from hf_unlearn.cli import leave, run_command


def main(argv: list[str] | None = None) -> int:
    return run_command(train, argv)


def train(argv: list[str] | None = None) -> None:
    from hf_unlearn import pipeline, results
    from hf_unlearn.arguments import parse_arguments
    from hf_unlearn.checks import check
    from hf_unlearn.progress import quiet_libraries

    arguments = parse_arguments(argv)
    check(arguments)
    quiet_libraries()

    with pipeline.nothing_left_behind(arguments):
        data = pipeline.prepare_data(arguments)  # request -> splits
        results.print_data(data)
        original = pipeline.get_original(arguments, data)
        if arguments.run.dry_run:
            return results.print_plan(arguments, data, original)
        pipeline.look_for_near_duplicates(arguments, data, original)
        before = pipeline.score_model(arguments, data, original.model, "the original")

        trainer = pipeline.make_trainer(arguments, data, original)
        unlearning = pipeline.unlearn(arguments, data, trainer)  # trainer -> model
        twins = pipeline.get_twins(arguments, data)

        evidence = results.make_evidence(arguments, data, original, before, trainer, unlearning, twins)
        results.save(arguments, trainer, evidence)
        results.print_result(arguments, trainer, evidence)
        results.push(arguments, trainer)


if __name__ == "__main__":
    leave(main())
