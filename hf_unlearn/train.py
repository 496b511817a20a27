"""Unlearn rows from a model and write the evidence: `accelerate launch hf_unlearn/train.py --config FILE`."""

from hf_unlearn.exits import leave, run_command


def main(argv: list[str] | None = None) -> int:
    return run_command(train, argv)


def train(argv: list[str] | None = None) -> None:
    from hf_unlearn.run.arguments import parse_arguments

    arguments = parse_arguments(argv)  # before the heavy imports: most mistakes are told at once

    from hf_unlearn.progress import quiet_libraries
    from hf_unlearn.run import results, rows, stages
    from hf_unlearn.run.checks import check

    check(arguments)
    quiet_libraries()

    with stages.nothing_left_behind(arguments):
        data = rows.prepare_data(arguments)  # request -> splits
        results.print_data(data)
        original = stages.get_original(arguments, data)
        if arguments.run.dry_run:
            return results.print_plan(arguments, data, original)
        stages.look_for_near_duplicates(arguments, data, original)
        before = stages.score_model(arguments, data, original.model, "the original")

        trainer = stages.make_trainer(arguments, data, original)
        unlearning = stages.unlearn(arguments, data, trainer)  # trainer -> model
        twins = stages.get_twins(arguments, data)

        evidence = results.make_evidence(arguments, data, original, before, trainer, unlearning, twins)
        results.save(arguments, trainer, evidence)
        results.print_result(arguments, trainer, evidence)
        results.push(arguments, trainer)


if __name__ == "__main__":
    leave(main())
