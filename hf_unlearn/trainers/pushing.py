"""To the Hub only at the end: Trainer's own ways there lead to one push of what may leave this machine."""

from pathlib import Path

from hf_unlearn.errors import UserError
from hf_unlearn.trainers.part import TrainerPart


class Pushing(TrainerPart):
    """Part of [`UnlearningTrainer`]: Trainer itself pushes at every save, and everything that lies in its folder; a
    repository's history keeps all of it."""

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        # Trainer calls this before training. The repository is made by the push; here only its name is looked at.
        from hf_unlearn.hub.upload import check_repo_id

        if self.args.hub_model_id is not None:
            check_repo_id(self.args.hub_model_id)
        self.hub_model_id = self.args.hub_model_id  # type: ignore[assignment]  # Trainer's has no annotation

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call=True)
        if self.args.push_to_hub and not _internal_call and not self.is_in_train:
            self.push_to_hub()

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing: a checkpoint is no result."""

    def push_to_hub(  # type: ignore[override]  # an address: nothing goes on in the background
        self,
        commit_message: str | None = None,
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        *,
        private: bool | None = None,
        push_adapter: bool = False,
    ) -> str | None:
        """Save the result into `output_dir` and push that: model, processor, evidence, report and card, in one commit.

        Every process must call it; the one that pushes returns the repository's address.

        Args:
            token, revision, private: default: the `hub_*` arguments.
            push_adapter (`bool`): push an adapter as it is instead of merged weights. Whoever switches it off has its
                base, with the forgotten rows if that learned them.

        Raises `UserError`: during or before training, or a push that failed; the result then lies in `output_dir`.
        """
        if self.is_in_train:
            raise UserError("push_to_hub during training would publish an unfinished model; call it afterwards")
        if not blocking:
            raise UserError("push_to_hub(blocking=False) is not offered: the push is one commit at the end")
        return push_from_trainer(
            self, commit_message, token=token, private=private, revision=revision, push_adapter=push_adapter
        )


def push_from_trainer(
    trainer: TrainerPart,
    commit_message: str | None = None,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    push_adapter: bool = False,
) -> str | None:
    """`trainer.push_to_hub()`: save the result into the trainer's output folder, then [`push`] that.

    Every process must call it; one of them pushes, and gets the address. What is not given comes from the trainer's
    `hub_*` arguments. An adapter is merged, unless `push_adapter`.

    Raises `UserError` before training, and as [`push`] does.
    """
    from hf_unlearn.hub.upload import check_repo_id, push
    from hf_unlearn.trainers.handover import final_model, save_result, score_model, trainer_evidence

    args = trainer.args
    if trainer.state.global_step == 0:
        raise UserError("nothing was unlearned yet, so there is nothing to push: call train() first")
    repo_id = args.hub_model_id or Path(args.output_dir).resolve().name
    check_repo_id(repo_id)
    evidence = getattr(trainer, "evidence", None)
    if evidence is None:  # measured on what is pushed
        model = final_model(trainer, save_adapter=push_adapter)
        evidence = trainer_evidence(trainer, after=score_model(trainer, model))
    if trainer.is_world_process_zero():
        trainer.callback_handler.on_push_begin(args, trainer.state, trainer.control)
    save_result(trainer, evidence, args.output_dir, save_adapter=push_adapter)
    if not trainer.is_world_process_zero():
        return None
    return push(
        args.output_dir,
        repo_id,
        private=args.hub_private_repo if private is None else private,
        token=token or args.hub_token,
        revision=revision or args.hub_revision,
        push_adapter=push_adapter,
        commit_message=commit_message,
    )
