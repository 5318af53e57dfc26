"""The papers that the parts of the library come from, and `cite`, which lists those that a model uses."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from omniconv._errors import check_instance


@dataclass(frozen=True)
class Reference:
    """One paper. `key`: the BibTeX key; `venue`: journal, conference or preprint number."""

    key: str
    title: str
    authors: str
    venue: str
    year: int

    def bibtex(self) -> str:
        """The paper as a BibTeX entry."""
        fields = {"title": f"{{{self.title}}}", "author": self.authors, "howpublished": self.venue, "year": self.year}
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@misc{{{self.key},\n{body}\n}}"


class Cited:
    """Base of parts that come from papers: those of the class; an instance may add those of its options."""

    references: tuple[Reference, ...] = ()


OMNICONV = Reference(
    "omniconv", "omniconv: one convolution for every signal", "{The omniconv authors}", "software", 2026
)
SIREN_PAPER = Reference(
    "sitzmann2020siren",
    "Implicit Neural Representations with Periodic Activation Functions",
    "Sitzmann, Vincent and Martel, Julien and Bergman, Alexander and Lindell, David and Wetzstein, Gordon",
    "NeurIPS; arXiv:2006.09661",
    2020,
)
FOURIER_FEATURES_PAPER = Reference(
    "tancik2020fourier",
    "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains",
    "Tancik, Matthew and Srinivasan, Pratul P. and Mildenhall, Ben and Fridovich-Keil, Sara and Raghavan, Nithin "
    "and Singhal, Utkarsh and Ramamoorthi, Ravi and Barron, Jonathan T. and Ng, Ren",
    "NeurIPS; arXiv:2006.10739",
    2020,
)
MFN_PAPER = Reference(
    "fathony2021multiplicative",
    "Multiplicative Filter Networks",
    "Fathony, Rizal and Sahu, Anit Kumar and Willmott, Devin and Kolter, J. Zico",
    "ICLR",
    2021,
)
RESNET_PAPER = Reference(
    "he2016resnet",
    "Deep Residual Learning for Image Recognition",
    "He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian",
    "CVPR; arXiv:1512.03385",
    2016,
)
TCN_PAPER = Reference(
    "bai2018tcn",
    "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling",
    "Bai, Shaojie and Kolter, J. Zico and Koltun, Vladlen",
    "arXiv:1803.01271",
    2018,
)
CKCONV_PAPER = Reference(
    "romero2022ckconv",
    "CKConv: Continuous Kernel Convolution for Sequential Data",
    "Romero, David W. and Kuzina, Anna and Bekkers, Erik J. and Tomczak, Jakub M. and Hoogendoorn, Mark",
    "ICLR; arXiv:2102.02611",
    2022,
)
FLEXCONV_PAPER = Reference(
    "romero2022flexconv",
    "FlexConv: Continuous Kernel Convolutions with Differentiable Kernel Sizes",
    "Romero, David W. and Bruintjes, Robert-Jan and Tomczak, Jakub M. and Bekkers, Erik J. "
    "and Hoogendoorn, Mark and van Gemert, Jan C.",
    "ICLR; arXiv:2110.08059",
    2022,
)
CCNN_PAPER = Reference(
    "romero2022ccnn",
    "Towards a General Purpose CNN for Long Range Dependencies in ND",
    "Romero, David W. and Knigge, David M. and Gu, Albert and Bekkers, Erik J. and Gavves, Efstratios "
    "and Tomczak, Jakub M. and Hoogendoorn, Mark",
    "arXiv:2206.03398",
    2022,
)
SYMMETRY_PAPER = Reference(
    "urbano2024symmetries",
    "Self-Supervised Detection of Perfect and Partial Input-Dependent Symmetries",
    "Urbano, Alonso and Romero, David W.",
    "GRaM Workshop at ICML; arXiv:2312.12223",
    2024,
)
DNARCH_PAPER = Reference(
    "romero2023dnarch",
    "DNArch: Learning Convolutional Neural Architectures by Backpropagation",
    "Romero, David W. and Zeghidour, Neil",
    "arXiv:2302.05400",
    2023,
)
SGCONV_PAPER = Reference(
    "li2023sgconv",
    "What Makes Convolutional Models Great on Long Sequence Modeling?",
    "Li, Yuhong and Cai, Tianle and Zhang, Yi and Chen, Deming and Dey, Debadeepta",
    "ICLR; arXiv:2210.09298",
    2023,
)
DCLS_PAPER = Reference(
    "hassani2023dcls",
    "Dilated convolution with learnable spacings",
    "Khalfaoui-Hassani, Ismail and Pellegrini, Thomas and Masquelier, Timothée",
    "ICLR; arXiv:2112.03740",
    2023,
)
DCLS_GAUSSIAN_PAPER = Reference(
    "hassani2023gaussian",
    "Dilated Convolution with Learnable Spacings: beyond bilinear interpolation",
    "Khalfaoui-Hassani, Ismail and Pellegrini, Thomas and Masquelier, Timothée",
    "Differentiable Almost Everything Workshop, ICML; arXiv:2306.00817",
    2023,
)
SMPCONV_PAPER = Reference(
    "kim2023smpconv",
    "SMPConv: Self-moving Point Representations for Continuous Convolution",
    "Kim, Sanghyeon and Park, Eunbyung",
    "CVPR; arXiv:2304.02330",
    2023,
)
LONGCONV_PAPER = Reference(
    "fu2023longconv",
    "Simple Hardware-Efficient Long Convolutions for Sequence Modeling",
    "Fu, Daniel Y. and Epstein, Elliot L. and Nguyen, Eric and Thomas, Armin W. and Zhang, Michael and Dao, Tri "
    "and Rudra, Atri and Ré, Christopher",
    "ICML; arXiv:2302.06646",
    2023,
)
LAYERWISE_PAPER = Reference(
    "vanderouderaa2023layerwise",
    "Learning Layer-wise Equivariances Automatically using Gradients",
    "van der Ouderaa, Tycho F. A. and Immer, Alexander and van der Wilk, Mark",
    "NeurIPS; arXiv:2310.06131",
    2023,
)
UNIREPLKNET_PAPER = Reference(
    "ding2024unireplknet",
    "UniRepLKNet: A Universal Perception Large-Kernel ConvNet for Audio, Video, Point Cloud, Time-Series and Image "
    "Recognition",
    "Ding, Xiaohan and Zhang, Yiyuan and Ge, Yixiao and Zhao, Sijie and Song, Lin and Yue, Xiangyu and Shan, Ying",
    "CVPR; arXiv:2311.15599",
    2024,
)
LIE_DECOMPOSITION_PAPER = Reference(
    "mironenco2024lie",
    "Lie Group Decompositions for Equivariant Neural Networks",
    "Mironenco, Mircea and Forr{\\'e}, Patrick",
    "ICLR; arXiv:2310.11366",
    2024,
)
POINTNET_PAPER = Reference(
    "qi2017pointnet",
    "PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation",
    "Qi, Charles R. and Su, Hao and Mo, Kaichun and Guibas, Leonidas J.",
    "CVPR; arXiv:1612.00593",
    2017,
)
POINTNET2_PAPER = Reference(
    "qi2017pointnet2",
    "PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space",
    "Qi, Charles R. and Yi, Li and Su, Hao and Guibas, Leonidas J.",
    "NeurIPS; arXiv:1706.02413",
    2017,
)
POINT_NN_PAPER = Reference(
    "zhang2023parameter",
    "Parameter is Not All You Need: Starting from Non-Parametric Networks for 3D Point Cloud Analysis",
    "Zhang, Renrui and Wang, Liuhui and Wang, Yali and Gao, Peng and Li, Hongsheng and Shi, Jianbo",
    "CVPR; arXiv:2303.08134",
    2023,
)
GRIDIFICATION_PAPER = Reference(
    "vanderlinden2023learned",
    "Learned Gridification for Efficient Point Cloud Processing",
    "van der Linden, Putri A. and Romero, David W. and Bekkers, Erik J.",
    "TAG-ML workshop at ICML; arXiv:2307.14354",
    2023,
)

LAUGHING_HYENA_PAPER = Reference(
    "massaroli2023laughing",
    "Laughing Hyena Distillery: Extracting Compact Recurrences From Convolutions",
    "Massaroli, Stefano and Poli, Michael and Fu, Daniel Y. and Kumbong, Hermann and Parnichkun, Rom N. and Timalsina, "
    "Aman and Romero, David W. and McIntyre, Quinn and Chen, Beidi and Rudra, Atri and Zhang, Ce and Ré, Christopher "
    "and Ermon, Stefano and Bengio, Yoshua",
    "NeurIPS; arXiv:2310.18780",
    2023,
)

HYENA_PAPER = Reference(
    "poli2023hyena",
    "Hyena Hierarchy: Towards Larger Convolutional Language Models",
    "Poli, Michael and Massaroli, Stefano and Nguyen, Eric and Fu, Daniel Y. and Dao, Tri and Baccus, Stephen "
    "and Bengio, Yoshua and Ermon, Stefano and Ré, Christopher",
    "ICML; arXiv:2302.10866",
    2023,
)
WEIGHT_NORM_PAPER = Reference(
    "salimans2016weight",
    "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks",
    "Salimans, Tim and Kingma, Diederik P.",
    "NeurIPS; arXiv:1602.07868",
    2016,
)
SPDER_PAPER = Reference(
    "shah2023spder",
    "SPDER: Semiperiodic Damping-Enabled Object Representation",
    "Shah, Kathan and Sitawarin, Chawin",
    "arXiv:2306.15242",
    2023,
)
FKAN_PAPER = Reference(
    "mehrabian2024fkan",
    "Implicit Neural Representations with Fourier Kolmogorov-Arnold Networks",
    "Mehrabian, Ali and Mojarad Adi, Parsa and Heidari, Moein and Hacihaliloglu, Ilker",
    "arXiv:2409.09323",
    2024,
)
SL2A_PAPER = Reference(
    "heidari2025sl2a",
    "SL2A-INR: Single-Layer Learnable Activation for Implicit Neural Representation",
    "Heidari, Moein and Rezaeian, Reza and Azad, Reza and Merhof, Dorit and Soltanian-Zadeh, Hamid "
    "and Hacihaliloglu, Ilker",
    "ICCV; arXiv:2409.10836",
    2025,
)
MIP_PAPER = Reference(
    "gonzalezortiz2024mip",
    "Magnitude Invariant Parametrizations Improve Hypernetwork Learning",
    "Gonzalez Ortiz, Jose Javier and Guttag, John and Dalca, Adrian V.",
    "ICLR; arXiv:2304.07645",
    2024,
)

S4D_PAPER = Reference(
    "gu2022s4d",
    "On the Parameterization and Initialization of Diagonal State Space Models",
    "Gu, Albert and Gupta, Ankit and Goel, Karan and Ré, Christopher",
    "NeurIPS; arXiv:2206.11893",
    2022,
)
S4ND_PAPER = Reference(
    "nguyen2022s4nd",
    "S4ND: Modeling Images and Videos as Multidimensional Signals Using State Spaces",
    "Nguyen, Eric and Goel, Karan and Gu, Albert and Downs, Gordon W. and Shah, Preey and Dao, Tri "
    "and Baccus, Stephen A. and Ré, Christopher",
    "NeurIPS; arXiv:2210.06583",
    2022,
)

GCNN_PAPER = Reference(
    "cohen2016group",
    "Group Equivariant Convolutional Networks",
    "Cohen, Taco and Welling, Max",
    "ICML; arXiv:1602.07576",
    2016,
)
SEPARABLE_PAPER = Reference(
    "knigge2022separable",
    "Exploiting Redundancy: Separable Group Convolutional Networks on Lie Groups",
    "Knigge, David M. and Romero, David W. and Bekkers, Erik J.",
    "ICML; arXiv:2110.13059",
    2022,
)
PARTIAL_PAPER = Reference(
    "romero2022partial",
    "Learning Partial Equivariances from Data",
    "Romero, David W. and Lohit, Suhas",
    "NeurIPS; arXiv:2110.10211",
    2022,
)
RELAXED_PAPER = Reference(
    "vanderouderaa2022relaxing",
    "Relaxing Equivariance Constraints with Non-stationary Continuous Filters",
    "van der Ouderaa, Tycho F. A. and Romero, David W. and van der Wilk, Mark",
    "NeurIPS; arXiv:2204.07178",
    2022,
)
ATTENTIVE_PAPER = Reference(
    "romero2020attentive",
    "Attentive Group Equivariant Convolutional Networks",
    "Romero, David W. and Bekkers, Erik J. and Tomczak, Jakub M. and Hoogendoorn, Mark",
    "ICML; arXiv:2002.03830",
    2020,
)
GROUP_ATTENTION_PAPER = Reference(
    "romero2021group",
    "Group Equivariant Stand-Alone Self-Attention For Vision",
    "Romero, David W. and Cordonnier, Jean-Baptiste",
    "ICLR; arXiv:2010.00977",
    2021,
)
WAVELET_PAPER = Reference(
    "romero2020wavelet",
    "Wavelet Networks: Scale-Translation Equivariant Learning From Raw Time-Series",
    "Romero, David W. and Bekkers, Erik J. and Tomczak, Jakub M. and Hoogendoorn, Mark",
    "TMLR; arXiv:2006.05259",
    2024,
)


def cite(model: nn.Module) -> str:
    """BibTeX entries of the papers behind the parts that `model` is made of, and of this library.

    >>> import omniconv as oc
    >>> print(oc.cite(oc.Conv1d(1, 1, 8, kernel=oc.SIREN, support=oc.Full)).splitlines()[0])
    @misc{omniconv,
    """
    check_instance("model", model, nn.Module)
    found = {OMNICONV: None} | {
        reference: None for module in model.modules() if isinstance(module, Cited) for reference in module.references
    }
    return "\n\n".join(reference.bibtex() for reference in found)
