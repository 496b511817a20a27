"""Unlearn rows from a model and write the evidence: `accelerate launch -m hf_unlearn.train --config FILE`."""

from hf_unlearn.exits import leave, run_command


def main(argv: list[str] | None = None) -> int:
    return run_command(train, argv)


def train(argv: list[str] | None = None) -> None:
    from hf_unlearn.run.named_places import check_named_places
    from hf_unlearn.run.parsing import parse_arguments

    check_named_places(argv)  # before the heavy imports, as most mistakes are told
    arguments = parse_arguments(argv)

    from hf_unlearn.evaluation.answers import ORIGINAL
    from hf_unlearn.progress import quiet_libraries, quietly
    from hf_unlearn.run import durability, results, rows, stages
    from hf_unlearn.run.checks import check
    from hf_unlearn.run.plan import print_plan
    from hf_unlearn.run.stopping import told_how_to_go_on

    check(arguments)
    quiet_libraries()

    silent = quietly(arguments.run.quiet or arguments.run.json)
    with silent, stages.nothing_left_behind(arguments), told_how_to_go_on(arguments):
        data = rows.prepare_data(arguments)  # request -> splits
        results.print_data(data)
        stages.try_references(arguments, data)
        if arguments.run.dry_run:
            return print_plan(arguments, data)
        stages.rehearse(arguments, data)
        original = stages.get_original(arguments, data)
        stages.look_for_near_duplicates(arguments, data, original)
        before = stages.score_model(arguments, data, original.model, ORIGINAL)
        stages.look_at_original(arguments, data, before)
        references = stages.check_references(arguments, data, before)

        trainer = stages.make_trainer(arguments, data, original)
        unlearning = stages.unlearn(arguments, data, trainer)  # trainer -> model
        results.save_model(arguments, trainer, unlearning)
        disturbed = durability.disturb(arguments, data, unlearning.model)
        scored, twins = stages.score_models(arguments, data, trainer, before, unlearning, references, disturbed.twin)

        evidence = results.make_evidence(arguments, data, original, trainer, unlearning, twins, scored)
        disturbed.add_to(evidence)
        results.save(arguments, data, trainer, evidence)
        results.print_result(arguments, data, trainer, evidence)
        results.push(arguments, trainer)


if __name__ == "__main__":
    leave(main())
