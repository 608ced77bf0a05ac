"""--config FILE.yaml and --print-config: flags by their long names in a file, for runs that are repeated.

The values become the defaults of the command's parser, so that they are read as flags are, and what the command line
says comes first.  YAML is read without types of its own: `1e-3` and `yes` are what they would be behind a flag.  PyYAML
alone, which Ray needs anyway: jsonargparse and ConfigArgParse would take the place of the parser, and with it of its
errors and of the predecessor's flags with one dash.
"""

import argparse
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from distcalib.caffe.paths import special
from distcalib.cli.arguments import a_path
from distcalib.errors import FLAGS, OptionError

FLAG, PRINT_FLAG = "--config", "--print-config"
_OWN = ("help", "config", "print_config", "json", "verbose", "quiet", "log_file")
"""They say how this one run is told, not what it does."""
_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NOTHING = ("", "~", "null")
_HEAD = "# distcalib {command} --config THIS_FILE: what the command line says comes first\n"


def add_config(parser: argparse.ArgumentParser) -> None:
    """--config and --print-config."""
    parser.add_argument(
        FLAG,
        type=a_path,
        metavar="FILE.yaml",
        help="take flags from this file, by their long names; those of the command line come first",
    )
    parser.add_argument(
        PRINT_FLAG, action="store_true", help="print all flags as such a file, as they are now, and run nothing"
    )


def configured(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Make the values of the file that `argv` names the defaults of `parser`, that of its command.

    Raises OptionError naming all keys of the file that are none, and all values that a flag would refuse.
    """
    if PRINT_FLAG in argv:
        for action in parser._actions:
            action.required = False
    given = _named(argv)
    if given is None:
        return
    path, actions = Path(given), _actions(parser)
    problems: list[str] = []
    for key, line, node in _pairs(path):
        where = f"{path}:{line}: {key}"
        name = key.replace("-", "_")
        if name not in actions:
            problems.append(f"{where}: {_unknown(name, actions)}")
            continue
        try:
            _take(parser, actions[name], node)
        except argparse.ArgumentError as error:
            problems.append(f"{where}: {error.message}")
    if problems:
        raise OptionError("; ".join(problems))


def settled(args: argparse.Namespace, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """`args` as parsed by `parser`, with what only the file says where the command line says nothing: a list of the
    command line takes the place of the file's, and so does its MODEL."""
    for action in parser._actions:
        given: object = getattr(args, action.dest, None)
        default: object = action.default
        if isinstance(default, list) and isinstance(given, list) and given[: len(default)] == default != given:
            setattr(args, action.dest, given[len(default) :])
        if action.dest == "model" and getattr(args, "model_path", None) is not None and given is default:
            args.model = None
    return args


def printed(args: argparse.Namespace, parser: argparse.ArgumentParser, command: str) -> str:
    """All flags of a command as a file that --config takes."""
    values: dict[str, object] = {}
    for key, action in _spelled(parser).items():
        value = getattr(args, action.dest)
        if key == "model" and value is None:
            value = args.model_path
        values[key] = _plain(value)
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return _HEAD.format(command=command) + text


def _named(argv: Sequence[str]) -> str | None:
    """The file that --config names; None for an empty name, too, which the parser refuses."""
    named = [after for word, after in zip(argv, [*argv[1:], ""], strict=True) if word == FLAG]
    named += [word.partition("=")[2] for word in argv if word.startswith(f"{FLAG}=")]
    if len(named) > 1:
        raise OptionError(f"{FLAG}: is given more than once; put all flags into one file")
    return named[0] or None if named else None


def _spelled(parser: argparse.ArgumentParser) -> Mapping[str, argparse.Action]:
    """By key the flags that a file may have: the long name."""
    return {
        max(action.option_strings, key=len).lstrip("-").replace("-", "_"): action
        for action in parser._actions
        if action.option_strings and action.dest not in _OWN and action.help != argparse.SUPPRESS
        if action.nargs != 0 or isinstance(action.const, bool)  # --keep-weights is a value of --recover
    }


def _actions(parser: argparse.ArgumentParser) -> Mapping[str, argparse.Action]:
    """The same, and by the names of the options in Python."""
    spelled = _spelled(parser)
    actions = dict(spelled)
    for action in spelled.values():
        for name in action.option_strings:
            if name in FLAGS:
                actions.setdefault(FLAGS[name], action)
    return actions


def _unknown(key: str, actions: Mapping[str, argparse.Action]) -> str:
    near = difflib.get_close_matches(key, actions, n=1)
    return f"is not a flag of this command; {f'did you mean {near[0]}?' if near else f'{PRINT_FLAG} lists all'}"


def _pairs(path: Path) -> Iterator[tuple[str, int, yaml.Node]]:
    """Keys with their lines and values."""
    if kind := special(path, streams=True):
        raise OptionError(f"{path}: is {kind}, not a file; name a file")
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise OptionError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise OptionError(f"{path}: is not text in UTF-8; save it as such") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        said = getattr(error, "problem", None) or "cannot be read"
        raise OptionError(f"{path}{line}: is not YAML ({said}); write a flag a line, such as iterations: 18") from None
    except RecursionError:
        raise OptionError(f"{path}: is nested too deeply; write a flag a line, such as iterations: 18") from None
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise OptionError(f"{path}: is not a list of flags; write a flag a line, such as iterations: 18")
    seen: dict[str, int] = {}
    for name, node in root.value:
        key = str(name.value) if isinstance(name, yaml.ScalarNode) else "a key that is not a word"
        line = name.start_mark.line + 1
        if key in seen:
            raise OptionError(f"{path}:{line}: {key}: stands in line {seen[key]} too; keep one of them")
        seen[key] = line
        yield key, line, node


def _take(parser: argparse.ArgumentParser, action: argparse.Action, node: yaml.Node) -> None:
    """Make the value of `node` the default of `action`; argparse.ArgumentError if it cannot be."""
    is_list = isinstance(action.default, list) or action.__class__.__name__ in ("_AppendAction", "_ExtendAction")
    texts = [_text(action, one, is_list) for one in (node.value if isinstance(node, yaml.SequenceNode) else [node])]
    if isinstance(node, yaml.SequenceNode) and not is_list:
        raise argparse.ArgumentError(action, "takes one value, not a list")
    given = [text for text in texts if text is not None]
    if not given:
        return
    if action.nargs == 0:
        word = given[0].lower()
        if word not in _SWITCH:
            raise argparse.ArgumentError(action, f"'{given[0]}' is neither true nor false")
        action.default = _SWITCH[word]
        return
    values = [parser._get_value(action, text) for text in given]
    for value in values:
        parser._check_value(action, value)
    if is_list:  # an action that extends has a list for each word
        action.default = [one for value in values for one in (value if isinstance(value, list) else [value])]
    else:
        action.default = values[0]
    action.required = False


def _text(action: argparse.Action, node: yaml.Node, is_list: bool) -> str | None:
    """The text of a scalar; None for one that says nothing."""
    if not isinstance(node, yaml.ScalarNode):
        raise argparse.ArgumentError(action, f"takes {'a list of values' if is_list else 'one value'}, nothing nested")
    text: str = node.value
    return None if node.style is None and text.lower() in _NOTHING else text


def _plain(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
