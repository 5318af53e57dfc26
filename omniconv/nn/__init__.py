"""Layers: the one place where a domain, a kernel, a support and an engine are put together."""

from omniconv.nn._refreshed import refresh as refresh
from omniconv.nn.basic_block import BasicBlock as BasicBlock
from omniconv.nn.block import ResidualBlock as ResidualBlock
from omniconv.nn.branched import Branched as Branched
from omniconv.nn.conv import Conv as Conv
from omniconv.nn.conv import Conv1d as Conv1d
from omniconv.nn.conv import Conv2d as Conv2d
from omniconv.nn.conv import Conv3d as Conv3d
from omniconv.nn.downsample import Downsample as Downsample
from omniconv.nn.embedding import TokenEmbedding as TokenEmbedding
from omniconv.nn.gated_block import GatedBlock as GatedBlock
from omniconv.nn.gated_conv import GatedConv as GatedConv
from omniconv.nn.gridify import Degridify as Degridify
from omniconv.nn.gridify import Gridify as Gridify
from omniconv.nn.group_attention import GroupAttention as GroupAttention
from omniconv.nn.group_block import GroupBasicBlock as GroupBasicBlock
from omniconv.nn.group_block import GroupConvBlock as GroupConvBlock
from omniconv.nn.group_block import GroupResidualBlock as GroupResidualBlock
from omniconv.nn.group_block import GroupSelfAttentionBlock as GroupSelfAttentionBlock
from omniconv.nn.group_conv import GroupConv as GroupConv
from omniconv.nn.group_project import GroupProject as GroupProject
from omniconv.nn.group_self_attention import GroupSelfAttention as GroupSelfAttention
from omniconv.nn.group_self_attention import LiftingSelfAttention as LiftingSelfAttention
from omniconv.nn.heads import DenseHead as DenseHead
from omniconv.nn.heads import LastHead as LastHead
from omniconv.nn.heads import PoolHead as PoolHead
from omniconv.nn.lifting_conv import LiftingConv as LiftingConv
from omniconv.nn.lifting_product import LiftingProduct as LiftingProduct
from omniconv.nn.masks import check_mask as check_mask
from omniconv.nn.masks import observed as observed
from omniconv.nn.multi_head_conv import MultiHeadConv as MultiHeadConv
from omniconv.nn.non_stationary_conv import NonStationaryConv as NonStationaryConv
from omniconv.nn.norm import BatchNorm as BatchNorm
from omniconv.nn.norm import ChannelNorm as ChannelNorm
from omniconv.nn.norm import LayerNorm as LayerNorm
from omniconv.nn.norm import Standardize as Standardize
from omniconv.nn.norm import synchronize as synchronize
from omniconv.nn.partial import Partial as Partial
from omniconv.nn.penalties import admissibility as admissibility
from omniconv.nn.penalties import aliasing as aliasing
from omniconv.nn.penalties import all_pass as all_pass
from omniconv.nn.penalties import kernel_norm as kernel_norm
from omniconv.nn.penalties import narrowness as narrowness
from omniconv.nn.penalties import regrowth as regrowth
from omniconv.nn.penalties import relaxation as relaxation
from omniconv.nn.point_conv import PointConv as PointConv
from omniconv.nn.pointwise import Pointwise as Pointwise
from omniconv.nn.shared_mlp import SharedMLP as SharedMLP
from omniconv.nn.state import State as State
from omniconv.nn.stepper import LayerStepper as LayerStepper

__all__ = [
    "BasicBlock",
    "BatchNorm",
    "Branched",
    "ChannelNorm",
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Degridify",
    "DenseHead",
    "Downsample",
    "GatedBlock",
    "GatedConv",
    "Gridify",
    "GroupAttention",
    "GroupBasicBlock",
    "GroupConv",
    "GroupConvBlock",
    "GroupProject",
    "GroupResidualBlock",
    "GroupSelfAttention",
    "GroupSelfAttentionBlock",
    "LastHead",
    "LayerNorm",
    "LayerStepper",
    "LiftingConv",
    "LiftingProduct",
    "LiftingSelfAttention",
    "MultiHeadConv",
    "NonStationaryConv",
    "Partial",
    "PointConv",
    "Pointwise",
    "PoolHead",
    "ResidualBlock",
    "SharedMLP",
    "Standardize",
    "State",
    "TokenEmbedding",
    "admissibility",
    "aliasing",
    "all_pass",
    "check_mask",
    "kernel_norm",
    "narrowness",
    "observed",
    "refresh",
    "regrowth",
    "relaxation",
    "synchronize",
]
