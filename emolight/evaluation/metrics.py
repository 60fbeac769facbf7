"""The metrics of training and validation, batch by batch; :mod:`.statistics` has those of a whole table."""

from collections.abc import Sequence

from torch import Tensor
from torchmetrics import ClasswiseWrapper, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassRecall,
)


class UnweightedAverageRecall(MulticlassConfusionMatrix):
    """UAR: the mean recall of the classes that occur.

    ``MulticlassRecall(average="macro")`` counts a class that is predicted but never occurs as a recall of 0.
    """

    def compute(self) -> Tensor:
        """UAR of all clips so far, of all processes."""
        counts = super().compute()
        occurring = counts.sum(dim=1) > 0
        return (counts.diagonal()[occurring] / counts.sum(dim=1)[occurring]).mean()


def classification_metrics(classes: Sequence[str], prefix: str) -> MetricCollection:
    """UAR (unweighted average recall), accuracy, macro-F1 and the recall of each class."""
    count = len(classes)
    return MetricCollection(
        {
            "uar": UnweightedAverageRecall(count),
            "accuracy": MulticlassAccuracy(count, average="micro"),
            "f1": MulticlassF1Score(count, average="macro"),
            "recall": ClasswiseWrapper(MulticlassRecall(count, average="none"), labels=list(classes), prefix="recall_"),
        },
        prefix=prefix,
        compute_groups=False,  # the wrapper around the recalls is not updated as a group's member
    )
