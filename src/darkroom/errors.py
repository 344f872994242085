"""Everything Darkroom raises on purpose.

DarkroomError                 one line: what, where, what was expected, what to do   (exit code 1)
├── CheckpointError           a file cannot be used                                  (3)
│   ├── LayoutError           keys or shapes are not what any layout promises
│   └── UnsafeFileError       a pickle that wants to run code
├── ImageError                a picture cannot be read                             (3)
│   └── ArrayError            an array that is no picture or mask; a ValueError, too
├── DataError                 a data set is missing, damaged or empty                 (3)
├── ModelNotFoundError        a name leads to no model                               (3)
├── ModelMismatchError        parts that do not fit: a control of another width      (3)
├── ConfigError               a field is unknown or out of range                     (2)
│   ├── UnknownKeyError       there is no such field                                 (2)
│   └── ConfigFileError       a file cannot be used as it is                         (3)
│   └── ArgumentError         an argument of a function, likewise; a ValueError and TypeError, too
├── PromptError               a prompt asks for something that is not there          (2)
├── NonFiniteError            a network produced NaN or infinity                     (1)
├── NotEnoughMemoryError      the plan does not fit; torch's own error stays torch's (4)
└── CancelledError            the caller asked to stop                               (5)

Plain ``ValueError`` means a bad argument to a function. ``DataWarning`` is the one warning.
"""


class DarkroomError(Exception):
    """Anything Darkroom raises on purpose. ``exit_code`` is what the command line ends with."""

    exit_code = 1


class CheckpointError(DarkroomError):
    """A file cannot be used: damaged, unknown, or not what was asked for."""

    exit_code = 3


class LayoutError(CheckpointError):
    """A checkpoint's keys or shapes are not what any layout promises."""


class UnsafeFileError(CheckpointError):
    """A pickle refers to something that is neither a tensor nor plain data."""


class ImageError(DarkroomError):
    """A picture cannot be read: missing, damaged, too large, or of another format."""

    exit_code = 3


class ArrayError(ImageError, ValueError):
    """An array or a tensor is no picture or no mask, or could be two different ones."""


class DataError(DarkroomError):
    """A data set cannot be used: missing, damaged, or nothing in it."""

    exit_code = 3


class ModelNotFoundError(DarkroomError):
    """A name is no file, no folder, no built-in and no known alias."""

    exit_code = 3


class ModelMismatchError(DarkroomError):
    """Two parts do not fit together, such as a LoRA for SDXL on an SD 1.5 model."""

    exit_code = 3


class ConfigError(DarkroomError):
    """A configuration field is unknown, missing or out of range."""

    exit_code = 2


class ArgumentError(ConfigError, ValueError, TypeError):
    """An argument of a function is unknown, of the wrong type or out of range."""


class UnknownKeyError(ConfigError):
    """A configuration has no field of that name."""


class ConfigFileError(ConfigError):
    """As ``ConfigError``, of values that a file says, or that were put over them."""

    exit_code = 3


class PromptError(DarkroomError):
    """A prompt names an embedding or a LoRA that cannot be found."""

    exit_code = 2


class NonFiniteError(DarkroomError):
    """A network produced NaN or infinity; the message names the step, sampler and dtype."""


class NotEnoughMemoryError(DarkroomError):
    """The memory estimate exceeds what is free; raised before the work starts."""

    exit_code = 4


class CancelledError(DarkroomError):
    """The caller asked a running job to stop."""

    exit_code = 5


class DataWarning(UserWarning):
    """A data set is used without some of it; the command line shows it as a note."""
