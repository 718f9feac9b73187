"""A third model, as small as one can be: a convolution over patches, and their mean."""

from .configuration_toymodel import ToyConfig
from .modeling_toymodel import ToyModel

__all__ = ["ToyConfig", "ToyModel"]
