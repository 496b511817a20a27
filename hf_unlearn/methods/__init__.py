"""Methods, one file each. A new method is a new file here and a line in `METHODS`."""

from typing import TYPE_CHECKING

from hf_unlearn.registry import Registry

if TYPE_CHECKING:
    from hf_unlearn.trainers.base import UnlearningTrainer

METHODS = {
    "nabla_tau": "hf_unlearn.methods.nabla_tau:NablaTauTrainer",
    "salun": "hf_unlearn.methods.salun:SalUnTrainer",
    "unsir": "hf_unlearn.methods.unsir:UnsirTrainer",
    "fine_tune": "hf_unlearn.methods.fine_tune:FineTuneTrainer",
    "neg_grad_plus": "hf_unlearn.methods.neg_grad_plus:NegGradPlusTrainer",
    "npo": "hf_unlearn.methods.npo:NPOTrainer",
    "simnpo": "hf_unlearn.methods.simnpo:SimNPOTrainer",
    "grad_diff": "hf_unlearn.methods.gradient_difference:GradDiffTrainer",
    "wga": "hf_unlearn.methods.gradient_difference:WGATrainer",
    "sat_imp": "hf_unlearn.methods.gradient_difference:SatImpTrainer",
    "undial": "hf_unlearn.methods.demoted_label:UndialTrainer",
    "ceu": "hf_unlearn.methods.demoted_label:CEUTrainer",
    "delete": "hf_unlearn.methods.demoted_label:DeleteTrainer",
    "idk_nll": "hf_unlearn.methods.refusals:IdkNLLTrainer",
    "idk_dpo": "hf_unlearn.methods.refusals:IdkDPOTrainer",
    "altpo": "hf_unlearn.methods.altpo:AltPOTrainer",
    "rmu": "hf_unlearn.methods.rmu:RMUTrainer",
    "scrub": "hf_unlearn.methods.scrub:ScrubTrainer",
    "bad_teacher": "hf_unlearn.methods.bad_teacher:BadTeacherTrainer",
    "ssd": "hf_unlearn.methods.ssd:SSDTrainer",
    "influence": "hf_unlearn.methods.influence:InfluenceTrainer",
    "gradient_ascent": "hf_unlearn.methods.gradient_ascent:GradientAscentTrainer",
    "boundary_shrink": "hf_unlearn.methods.boundary:BoundaryShrinkTrainer",
    "boundary_expanding": "hf_unlearn.methods.boundary:BoundaryExpandingTrainer",
    "msg": "hf_unlearn.methods.msg:MSGTrainer",
    "lotus": "hf_unlearn.methods.lotus:LotusTrainer",
}
_REGISTRY = Registry("method", METHODS, "hf_unlearn.trainers.base:UnlearningTrainer")


def get_method(method: "str | type[UnlearningTrainer]") -> "type[UnlearningTrainer]":
    """The trainer class of a method: by its name, as `module:Class`, or as it is. Raises `UserError`."""
    return _REGISTRY.get(method)


def method_names() -> list[str]:
    """Names of all methods, those of installed packages included."""
    return _REGISTRY.names()
