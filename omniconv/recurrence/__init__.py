"""From trained convolutions to recurrences: constant memory and constant time for every sample."""

from omniconv.recurrence.certificate import Certificate as Certificate
from omniconv.recurrence.certificate import certify as certify
from omniconv.recurrence.decoder import Decoder as Decoder
from omniconv.recurrence.distill import Distillation as Distillation
from omniconv.recurrence.distill import distill as distill
from omniconv.recurrence.hankel import hankel_singular_values as hankel_singular_values
from omniconv.recurrence.recurrence import Recurrence as Recurrence
from omniconv.recurrence.stream import Stream as Stream
from omniconv.recurrence.stream import StreamCertificate as StreamCertificate
from omniconv.recurrence.stream import stream as stream

__all__ = [
    "Certificate",
    "Decoder",
    "Distillation",
    "Recurrence",
    "Stream",
    "StreamCertificate",
    "certify",
    "distill",
    "hankel_singular_values",
    "stream",
]
