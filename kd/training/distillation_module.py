"""Student, projections and objective as one module: the module that DeepSpeed wraps."""

from torch import Tensor, nn

from kd.distributed.rank_progress import RankProgress
from kd.models.capture import capture
from kd.models.encoder import Encoder
from kd.models.outputs import Decoder
from kd.objective.objective import Objective
from kd.objective.projections import make_projections
from kd.objective.selection import Selection
from kd.objective.teacher_outputs import TeacherOutputs
from kd.training.teaching import Teaching


class DistillationModule(nn.Module):
    """forward returns (loss share [], sums [K]). `objective` is set for each update."""

    def __init__(
        self, student: Encoder, objective: Objective, vocabulary: int, seed: int = 1, progress: RankProgress | None = None
    ) -> None:
        super().__init__()
        self.progress = progress or RankProgress()
        self.student = student
        self.projections = make_projections(objective, seed)
        self.objective = objective
        self.vocabulary = vocabulary
        self.teaching: Teaching | None = None
        """Filled by each micro-batch, where an update is looked at."""

    def forward(self, selection: Selection, teachers: TeacherOutputs, divisors: Tensor) -> tuple[Tensor, Tensor]:
        """One micro-batch. divisors [K]: the update's global token count of each term."""
        outputs = capture(self.student, selection.batch, self.objective.student_states)
        self.progress.enter("head")
        if outputs.logits is None:
            transformed = self.student.transform(outputs.last_hidden[selection.logits])
            decoder = Decoder(self.student.decoder_weight, self.student.decoder_bias, self.vocabulary)
            outputs = outputs._replace(transformed=transformed, decoder=decoder)
            if self.teaching is not None:
                self.teaching.add(outputs, teachers, selection, self.objective.on_logits)
        else:
            outputs = outputs._replace(logits=selection.rows(outputs.logits))
        return self.objective(outputs, teachers, selection, divisors, dict(self.projections))
