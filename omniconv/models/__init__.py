"""Networks made only of the library's layers."""

from omniconv.models._network import Network as Network
from omniconv.models._pretrained import read_config as read_config
from omniconv.models._registry import create_model as create_model
from omniconv.models._registry import list_models as list_models
from omniconv.models._registry import register_model as register_model
from omniconv.models.ccnn import CCNN as CCNN
from omniconv.models.ckcnn import CKCNN as CKCNN
from omniconv.models.flexnet import FlexNet as FlexNet
from omniconv.models.gcnn import GCNN as GCNN
from omniconv.models.generate import Generation as Generation
from omniconv.models.gridded import GriddedNet as GriddedNet
from omniconv.models.group_self_attention_net import GroupSelfAttentionNet as GroupSelfAttentionNet
from omniconv.models.hyena import Hyena as Hyena
from omniconv.models.hyena import MultiHyena as MultiHyena
from omniconv.models.point_nn import PointNN as PointNN
from omniconv.models.pointnet import PointNet as PointNet
from omniconv.models.pointnet2 import PointNet2 as PointNet2
from omniconv.models.pose_autoencoder import PoseAutoencoder as PoseAutoencoder
from omniconv.models.pose_autoencoder import Posed as Posed
from omniconv.models.presets import Preset as Preset
from omniconv.models.presets import preset as preset
from omniconv.models.sampling import Sampling as Sampling
from omniconv.models.stepper import Stepper as Stepper
from omniconv.models.wavelet import WaveletNet as WaveletNet

__all__ = [
    "CCNN",
    "CKCNN",
    "GCNN",
    "FlexNet",
    "Generation",
    "GriddedNet",
    "GroupSelfAttentionNet",
    "Hyena",
    "MultiHyena",
    "Network",
    "PointNN",
    "PointNet",
    "PointNet2",
    "PoseAutoencoder",
    "Posed",
    "Preset",
    "Sampling",
    "Stepper",
    "WaveletNet",
    "create_model",
    "list_models",
    "preset",
    "read_config",
    "register_model",
]
