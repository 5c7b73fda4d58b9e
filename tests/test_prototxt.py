"""The text format: what protobuf reads, what it refuses and in which words, where everything stands, and hostile text."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffe_proto import caffe_pb2
from inspector import prototxt
from inspector.errors import Position, PrototxtError
from inspector.prototxt import parse

F = descriptor_pb2.FieldDescriptorProto
SCALARS = ["double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "bytes"]
SCALARS += ["uint32", "sfixed32", "sfixed64", "sint32", "sint64"]


@cache
def every_type():
    """A message class with an optional and a repeated field of every type, named opt_TYPE and rep_TYPE; messages nest."""
    file = descriptor_pb2.FileDescriptorProto(name="every.proto", package="t", syntax="proto2")
    kind = file.enum_type.add(name="Kind")
    for name, number in (("ZERO", 0), ("ONE", 1), ("MINUS", -7), ("inf", 3)):
        kind.value.add(name=name, number=number)
    every = file.message_type.add(name="Every")
    number = 0
    for prefix, label in (("opt", F.LABEL_OPTIONAL), ("rep", F.LABEL_REPEATED)):
        for name in (*SCALARS, "enum", "message"):
            number += 1
            field = every.field.add(name=f"{prefix}_{name}", number=number, label=label, type=F.Type.Value(f"TYPE_{name.upper()}"))
            if name in ("enum", "message"):
                field.type_name = {"enum": ".t.Kind", "message": ".t.Every"}[name]
    group = every.nested_type.add(name="Bunch")
    group.field.add(name="a", number=1, label=F.LABEL_OPTIONAL, type=F.TYPE_INT32)
    every.field.add(name="bunch", number=100, label=F.LABEL_REPEATED, type=F.TYPE_GROUP, type_name=".t.Every.Bunch")
    every.field.add(name="packed", number=2000, label=F.LABEL_REPEATED, type=F.TYPE_FLOAT).options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Every"))


def read(text, message=None):
    """Parses what must have no findings."""
    document = parse(text, message or every_type())
    assert document.findings == []
    return document.message


# ---- agreement with protobuf's own parser ----------------------------------------------------------------------------------

LIMITS = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}
WHITE = ["", " ", "\n", "\t ", "\r\n", " # a comment { \" '\n", "\f\v", "\r"]


def limits(name):
    return LIMITS[name.replace("sfixed", "int").replace("sint", "int").replace("fixed", "uint")]


@st.composite
def integer(draw, name, octal=True):
    low, high = limits(name)
    value = draw(st.one_of(st.integers(low, high), st.sampled_from([low, high, 0, 1])))
    form = draw(st.sampled_from(["d", "x", "X", "o"] if octal else ["d"]))
    digits = {"d": f"{abs(value)}", "x": f"0x{abs(value):x}", "X": f"0X{abs(value):X}", "o": f"0{abs(value):o}"}[form]
    return "-" * (value < 0) + digits


@st.composite
def floating(draw):
    value = draw(st.floats(allow_nan=False, allow_infinity=False))
    # Python's text_format does not know 1e5f; nor does it matter to the value
    return draw(
        st.sampled_from([repr(value), f"{value:.3e}", "1.5f", "-2f", ".5", "7.", "inf", "-Infinity", "1e400", "-3E+2", "12"])
    )


@st.composite
def literal(draw, is_bytes):
    """One to three string literals side by side, in either quotes, with every kind of escape."""
    plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\\\"'\r"), max_size=6)
    escapes = [r"\n", r"\t", r"\"", r"\'", r"\\", r"\x41", r"\x9", r"\101", r"\7 ", r"\a", r"\v", r"\u00e9", r"\U0001F600"]
    raw = st.sampled_from(escapes + ([r"\xff", r"\377", r"\0"] if is_bytes else [r"\303\251"]))
    pieces = draw(st.lists(st.lists(st.one_of(plain, raw), max_size=4).map("".join), min_size=1, max_size=3))
    return draw(st.sampled_from(["", " ", "\n#x\n"])).join(
        draw(st.sampled_from(["'{}'", '"{}"'])).format(piece) for piece in pieces
    )


@st.composite
def scalar(draw, name):
    if name in ("string", "bytes"):
        return draw(literal(name == "bytes"))
    if name in ("float", "double"):
        return draw(floating())
    if name == "bool":
        return draw(st.sampled_from(["true", "false", "True", "False", "t", "f", "0", "1"]))
    if name == "enum":
        return draw(st.sampled_from(["ZERO", "ONE", "MINUS", "inf", "0", "-7", "3", "0x1"]))
    return draw(integer(name))


@st.composite
def fields(draw, depth):
    """The text of a message's body, in odd styles."""
    chosen = draw(st.lists(st.sampled_from(["enum", "message", "packed", "Bunch", *SCALARS]), max_size=6))
    gap = st.sampled_from(WHITE)
    text, given_once = [], set()
    for kind in chosen:
        if kind == "message" and depth == 0:
            continue
        name = kind if kind in ("packed", "Bunch") else f"{draw(st.sampled_from(['opt', 'rep']))}_{kind}"
        if name.startswith("opt"):
            if name in given_once:
                continue
            given_once.add(name)
        listed = not name.startswith("opt") and draw(st.booleans())
        values = []
        for _ in range(draw(st.integers(0, 3)) if listed else 1):
            if kind in ("message", "Bunch"):
                inner = draw(fields(depth - 1)) if kind == "message" else draw(st.sampled_from(["", "a: 5", "a: -0x10;"]))
                values.append(draw(st.sampled_from(["{{{}}}", "<{}>", "{{ {}\n}}"])).format(inner))
            else:
                values.append(draw(scalar("float" if kind == "packed" else kind)))
        colon = draw(st.sampled_from([":", " :", ""] if kind in ("message", "Bunch") else [":", " :"]))
        between = draw(gap) + "," + draw(gap)
        value = f"[{draw(gap)}{between.join(values)}{draw(gap)}]" if listed else values[0]
        text.append(f"{name}{colon}{draw(gap)}{value}{draw(st.sampled_from([' ', ',', ';', ' ; ', chr(10)]))}")
    return draw(gap) + draw(gap).join(text)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(fields(2))
def test_it_reads_what_text_format_reads(text):
    expected = text_format.Parse(text, every_type()())
    assert read(text) == expected
    assert read(text.encode()) == expected


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(fields(2), st.booleans(), st.booleans(), st.booleans())
def test_it_reads_what_text_format_prints(text, one_line, pointy, short_lists):
    message = text_format.Parse(text, every_type()())
    style = {"as_one_line": one_line, "pointy_brackets": pointy, "use_short_repeated_primitives": short_lists}
    assert read(text_format.MessageToString(message, **style)) == message


def test_long_lines_are_cut_between_tokens(monkeypatch):
    text = 'rep_double: [-1e+5, 2e-3] opt_string: \'a\\\\\' "b\\"" rep_message { rep_int32: -77 } # {' * 3
    text = text.replace("opt_string", "rep_string")
    expected = text_format.Parse(text, every_type()())
    for window in range(1, 60):
        monkeypatch.setattr(prototxt, "WINDOW", window)
        assert read(text) == expected
        assert parse(text + "\nnope: 3", every_type()).findings[0].where == Position("<text>", 2, 1)


def reference_texts(reference: Path):
    for path in sorted(reference.rglob("*.prototxt")):
        yield path, path.read_bytes()


def test_every_reference_file_reads_as_text_format_reads_it(reference):
    counted = 0
    for path, text in reference_texts(reference):
        kind = caffe_pb2.SolverParameter if b"base_lr" in text else caffe_pb2.NetParameter
        try:
            expected = text_format.Parse(text, kind())
        except text_format.ParseError:
            with suppress(PrototxtError):  # some are logs' dumps, cut in mid-word
                assert any(finding.severity == "error" for finding in parse(text, kind).findings), path
            continue
        assert read(text, kind) == expected, path
        counted += 1
    assert counted > 900


def test_every_refusal_of_the_parser_has_caffes_words(reference):
    refused = 0
    for line in (reference / "prototxts" / "verdicts.jsonl").read_text().splitlines():
        verdict = json.loads(line)
        document = parse((reference / "prototxts" / verdict["file"]).read_bytes())
        refusal = verdict["TRAIN"]["refusal"] or ""
        expected = refusal.partition("Error parsing text-format caffe.NetParameter: ")[2] or None
        errors = [finding.values["caffe"] for finding in document.findings if finding.severity == "error"]
        assert (errors[0] if errors else None) == expected, verdict["file"]
        refused += expected is not None
    assert refused == 100


# ---- values ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\?\"\'"', "?\"'"),
        (r'"\x4a\x4" "1"', "J\x041"),
        (r'"\1012\60"', "A20"),
        (r'"\ud83d\ude00 \u20AC"', "😀 €"),
        ("'a' # and\n\"b\"", "ab"),
        (r'"\303\251" "\xc3" "\xa9"', "éé"),
        ('"# no comment; {"', "# no comment; {"),
    ],
)
def test_strings(text, value):
    assert read(f"opt_string: {text}").opt_string == value


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("opt_int32", "- 5", -5),
        ("opt_int32", "-#\n0x10", -16),
        ("opt_int32", "010", 8),
        ("opt_uint64", "0xFFFFFFFFFFFFFFFF", 2**64 - 1),
        ("opt_sint64", "-9223372036854775808", -(2**63)),
        ("opt_double", "1e5f", 1e5),
        ("opt_double", "- inf", float("-inf")),
        ("opt_double", "INFINITY", float("inf")),
        ("opt_float", "1e39", float("inf")),
        ("opt_float", "-3.5e38", float("-inf")),
        ("opt_double", "18446744073709551616", 2.0**64),
        ("opt_bool", "0x1", True),
        ("opt_enum", "- 7", -7),
    ],
)
def test_numbers(field, text, value):
    assert getattr(read(f"{field}: {text}"), field) == value


def test_nan_is_read():
    assert str(read("opt_float: NaN opt_double: -nan").opt_float) == "nan"


def test_groups_and_maps_of_names():
    assert [bunch.a for bunch in read("Bunch { a: 1 } Bunch: < a: 2 >").bunch] == [1, 2]


# ---- findings --------------------------------------------------------------------------------------------------------------

NET = caffe_pb2.NetParameter


@pytest.mark.parametrize(
    ("text", "code", "caffe", "place"),
    [
        ("layer { nam: 1 }", "unknown-field", '1:12: Message type "caffe.LayerParameter" has no field named "nam".', (1, 9)),
        ("\tnam :\n 1", "unknown-field", '1:13: Message type "caffe.NetParameter" has no field named "nam".', (1, 2)),
        (
            "[a.b] {}",
            "unknown-field",
            '1:7: Extension "a.b" is not defined or is not an extension of "caffe.NetParameter".',
            (1, 1),
        ),
        ("name: 3", "wrong-value-type", "1:7: Expected string, got: 3", (1, 7)),
        ("name: {}", "wrong-value-type", "1:7: Expected string, got: {", (1, 7)),
        ("name {}", "wrong-value-type", '1:6: Expected ":", found "{".', (1, 6)),
        ("layer: 'x'", "wrong-value-type", '1:8: Expected "{", found "\'x\'".', (1, 8)),
        ("input_dim: 1.5", "wrong-value-type", "1:12: Expected integer, got: 1.5", (1, 12)),
        ("input_dim: -four", None, None, None),
        ("input_dim: 2147483648", "out-of-range", "1:12: Integer out of range (2147483648)", (1, 12)),
        ("input_dim: -2147483649", "out-of-range", "1:13: Integer out of range (2147483649)", (1, 12)),
        ("force_backward: 2", "out-of-range", "1:17: Integer out of range (2)", (1, 17)),
        ("layer{convolution_param{num_output:-1}}", "out-of-range", "1:36: Expected integer, got: -", (1, 36)),
        (
            "force_backward: TRUE # x\nname: 'x'",
            "wrong-value-type",
            '2:1: Invalid value for boolean field "force_backward". Value: "TRUE".',
            (1, 17),
        ),
        ("force_backward: 'true'", "wrong-value-type", "1:17: Expected identifier, got: 'true'", (1, 17)),
        ("layers {\n type: NOPE\n}", "unknown-enum-value", '3:1: Unknown enumeration value of "NOPE" for field "type".', (2, 8)),
        ("layers { type: -99 }", "unknown-enum-value", '1:20: Unknown enumeration value of "-99" for field "type".', (1, 16)),
        ('layers { type: "DATA" }', "wrong-value-type", '1:16: Expected integer or identifier, got: "DATA"', (1, 16)),
        ("layer{loss_weight: x}", "wrong-value-type", "1:20: Expected double, got: x", (1, 20)),
        ("layer{loss_weight: 0x1}", "out-of-range", None, (1, 20)),
        ("layer{loss_weight: 010}", "wrong-value-type", "1:20: Expect a decimal number, got: 010", (1, 20)),
        ("layer{loss_weight: -01.5f}", "wrong-value-type", "1:23: Hex and octal numbers must be integers.", (1, 20)),
        ("layer{loss_weight: INFF}", "wrong-value-type", "1:20: Expected double, got: inff", (1, 20)),
        ("name: 'a'\nname: 'b'", "field-given-twice", '2:5: Non-repeated field "name" is specified multiple times.', (2, 1)),
        (r"name: 'C:\data'", "bad-escape", "1:11: Invalid escape sequence in string literal.", (1, 10)),
        ("\ufeffname: 'a'", "byte-order-mark", "1:1: Interpreting non ascii codepoint 239.", (1, 1)),
        ("é: 1", None, None, None),
        ("# é\nname: 'éé' nam: 1", "unknown-field", '2:17: Message type "caffe.NetParameter" has no field named "nam".', (2, 12)),
    ],
)
def test_findings_have_a_code_a_place_and_caffes_words(text, code, caffe, place):
    if code is None:
        with pytest.raises(PrototxtError):
            parse(text)
        return
    finding = parse(text).findings[0]
    if code == "out-of-range" and caffe is None:
        assert finding.values["caffe"] == "1:20: Expect a decimal number, got: 0x1"
        return
    assert (finding.code, finding.values["caffe"]) == (code, caffe)
    assert finding.where == Position("<text>", *place)
    assert finding.severity == "error"


def test_reading_goes_on_after_what_is_unknown():
    text = """
    name: "net"
    layer {
      fork_param: < a: [1, -inf, {b: "}"}] "c" >
      name: "conv" type: "Convolution"
      convolution_param { kernel_siz: 3; kernel_size: 5 engine: MKL [x.y/z]: 4 } pool: [ ] blobs_lr: - 1
      param [ {lr_mult: 2}, {nope {}}, 7, {lr_mult: 3} ]
    }
    input_dim: [1, x, 3]
    """.replace('"c" >', ">")
    document = parse(text)
    net = document.message
    assert (net.name, net.layer[0].name, list(net.layer[0].convolution_param.kernel_size)) == ("net", "conv", [5])
    assert [param.lr_mult for param in net.layer[0].param] == [2, 1, 3] and list(net.input_dim) == [1, 3]
    assert [unknown.name for unknown in document.unknown] == ["fork_param", "kernel_siz", "[x.y/z]", "pool", "blobs_lr", "nope"]
    assert document.unknown[0].value == '< a: [1, -inf, {b: "}"}] >' and document.unknown[4].value == "- 1"
    assert document.unknown[1].path == ("layer", 0, "convolution_param") and document.unknown[5].path == ("layer", 0, "param", 1)
    assert text.encode()[document.unknown[3].offset :].startswith(b"pool: [ ]") and document.unknown[3].value == "[ ]"
    kinds = ["unknown-field", "unknown-field", "unknown-enum-value", *["unknown-field"] * 4, *["wrong-value-type"] * 2]
    assert [finding.code for finding in document.findings] == kinds
    finding = document.findings[1]
    assert finding.remedy == "did you mean 'kernel_size'?" and (finding.layer, finding.layer_type) == ("conv", "Convolution")
    facts = {"message_type": "caffe.ConvolutionParameter", "field": "kernel_siz", "value": "3"}
    assert facts.items() <= finding.values.items()
    assert "layer 'conv' (Convolution): 'kernel_siz' is no field of caffe.ConvolutionParameter; did you mean" in str(finding)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("layer { pooling: 3 }", "did you mean 'pooling_param'?"),
        ("layer { Type: 'x' }", "did you mean 'type'?"),
        ("layer { permute_param {} }", ""),
        ("layer { transpose_param {} }", ""),
        ("layers { type: 'Data' }", "did you mean 'DATA'?"),
        ("layers { type: INNER_PRODUKT }", "did you mean 'INNER_PRODUCT'?"),
        ("layers { type: ROI_POOLING }", ""),
    ],
)
def test_did_you_mean_only_what_is_close(text, remedy):
    assert parse(text).findings[0].remedy == remedy


def test_a_field_given_twice_counts_as_last_given():
    document = parse("name: 'a' layer { pooling_param { pad: 1 stride: 2 } pooling_param { pad: 3 } } name: 'b' ")
    assert document.message.name == "b"
    pooling = document.message.layer[0].pooling_param
    assert (pooling.pad, pooling.stride) == (3, 2)
    assert [finding.code for finding in document.findings] == ["field-given-twice"] * 2
    assert document.position(("layer", 0, "pooling_param", "stride")).column == 42
    assert document.position(("layer", 0, "pooling_param", "pad")).column == 70


def test_missing_required_fields_come_last():
    document = parse("layer { name: 'c' clip_param { max: 1 } }")
    (finding,) = document.findings
    assert finding.values["caffe"] == "Message missing required fields: layer[0].clip_param.min"
    assert finding.where == Position("<text>", 1, 19)


def test_text_that_is_not_utf8():
    document = parse(b"# caf\xe9\nname: 'r\xe9seau' nam: 1\n")
    assert document.message.name == "réseau"
    warning, unknown = document.findings
    assert (warning.code, warning.severity, str(warning.where)) == ("not-utf-8", "warning", "<text>:1:6")
    assert unknown.where.column == 16 and unknown.values["caffe"].startswith("2:19: ")
    assert document.text == "# café\nname: 'réseau' nam: 1\n"
    assert parse("name: 'r\udce9seau'").message.name == "réseau"  # as os.fsdecode and errors="surrogateescape" give it
    escaped = parse(r"name: '\xff'")
    assert escaped.message.name == "ÿ" and [finding.code for finding in escaped.findings] == ["not-utf-8"]
    assert read(r"opt_bytes: '\xff'").opt_bytes == b"\xff"


# ---- syntax errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "said", "caffe"),
    [
        ("name 'x'", (1, 6), "expected ':' after 'name', found 'x'", '1:6: Expected ":", found "\'x\'".'),
        ("name: 'x", (1, 7), "expected a quote", None),
        ("name: 'x\ny'", (1, 7), "expected a quote", None),
        ("name: \"x'", (1, 7), "expected a quote", None),
        ("name:", (1, 6), "found the end of the text", "1:6: Expected string, got: "),
        ("input_dim: -", (1, 13), "found the end of the text", None),
        ("nope: - #", (1, 10), "found the end of the text", None),
        ("5: 3", (1, 1), "expected a field name, found '5'", None),
        ("layer {\n  name: 'x'\n", (2, 12), "the '{' opened at 1:7 is never closed", "3:1: Expected identifier, got: "),
        ("layer {\n foo <\n\n", (2, 7), "the '<' opened at 2:6 is never closed", None),
        ("layer { name: 'x' >", (1, 19), "found '>' within the '{' opened at 1:7", None),
        ("layer { foo { > }", (1, 15), "found '>' within the '{' opened at 1:13", None),
        ("}", (1, 1), "'}' closes nothing", "1:1: Expected identifier, got: }"),
        ("name: 'x';;", (1, 11), "found ';'", "1:11: Expected identifier, got: ;"),
        ("layer {, }", (1, 8), "found ','", None),
        ("input_dim: [1,]", (1, 15), "expected int32, found ']'", "1:15: Expected integer, got: ]"),
        ("input_dim: [1 2]", (1, 15), "expected ',' or ']', found '2'", '1:15: Expected ",", found "2".'),
        ("layer: [{} {}]", (1, 12), "expected ',' or ']', found '{'", '1:12: Expected ",", found "{".'),
        ("input_dim: 12abc", (1, 12), "expected int32, found '12abc'", None),
        ("input_dim: 089", (1, 12), "found '089'", None),
        ("input_dim: 1_000", (1, 12), "found '1_000'", None),
        ("input_dim: +1", (1, 12), "found '+'", "1:12: Expected integer, got: +"),
        ("layer{loss_weight: 1e5ff}", (1, 20), "expected float, found '1e5ff'", None),
        ("foo: bar: 1", (1, 6), "expected a value, found 'bar'", None),
        ("foo bar", (1, 5), "expected ':' or '{' after 'foo', found 'bar'", None),
        ("foo: -bar", (1, 7), "expected a value", None),
        ("name: 'x' é", (1, 11), "found 'é'", "1:11: Interpreting non ascii codepoint 195."),
        ("name: \x01", (1, 7), "found '\\x01'", "1:7: Invalid control characters encountered in text."),
        ("name: 'a\0'", (1, 9), "a NUL byte", "1:9: Invalid control characters encountered in text."),
    ],
)
def test_syntax_errors_show_the_place(text, place, said, caffe):
    with pytest.raises(PrototxtError) as caught:
        parse(text, name="a.prototxt")
    error = caught.value
    assert error.finding.where == Position("a.prototxt", *place)
    assert said in str(error)
    if caffe is not None:
        assert error.values["caffe"] == caffe
    line, caret = str(error).splitlines()[-2:]
    assert text.split("\n")[place[0] - 1].rstrip().translate({0: "\ufffd", 1: "\ufffd"}) == line.rstrip()
    assert caret == " " * (place[1] - 1) + "^"


def test_findings_before_a_syntax_error_are_kept():
    with pytest.raises(PrototxtError) as caught:
        parse("nam: 1 }")
    assert [finding.code for finding in caught.value.values["findings"]] == ["unknown-field"]


def test_utf16_is_named():
    with pytest.raises(PrototxtError, match="UTF-16"):
        parse("name: 'x'".encode("utf-16"))


def test_the_caret_keeps_tabs_and_cuts_long_lines():
    document = parse("layer {\n\t\tnam: 1\n}" + " " * 5000 + "nam: 2" + " x: 1" * 900)
    first, second = document.findings[:2]
    assert document.caret(first.where) == "\t\tnam: 1\n\t\t^"
    line, caret = document.caret(second.where).splitlines()
    assert len(line) <= prototxt.LONGEST_LINE + 2 and line[caret.index("^") :].startswith("nam: 2 x: 1")


# ---- positions -------------------------------------------------------------------------------------------------------------


def walk(message, path=()):
    """Every path that is set in a message, with what stands there: the field's name."""
    for field, value in message.ListFields():
        repeated = isinstance(getattr(field, "is_repeated", None), bool) and field.is_repeated
        name = field.message_type.name if field.name == "bunch" else field.name
        for number, one in enumerate(value if repeated else [value]):
            here = (*path, name, number) if repeated else (*path, name)
            yield here, name
            if field.message_type is not None:
                yield from walk(one, here)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(fields(2))
def test_everything_that_was_set_has_a_position(text):
    document = parse(text, every_type())
    lines = text.split("\n")
    seen = set()
    for path, name in walk(document.message):
        where = document.position(path)
        rest = lines[where.line - 1][where.column - 1 :]
        assert rest.startswith((name, "{", "<", '"', "'", "-")) or rest[0].isalnum() or rest[0] == ".", (path, rest)
        assert where not in seen
        seen.add(where)


def test_positions():
    text = (
        "# net\nname: 'n'\nlayer { name: 'a'\n  bottom: 'x' bottom: ['y',\n 'z' 'z'] }\n"
        "layer: [<type: 'T'>, {\n convolution_param { kernel_size: [3, nope, 5] kernel_size: - 1 kernel_size: 7 } }]\n"
    )
    document = parse(text, name="f")

    def at(*path):
        where = document.position(path)
        return where and (where.line, where.column)

    assert at("name") == (2, 1) and at("name", 0) == (2, 1)
    assert at("layer", 0) == (3, 1) and at("layer", 0, "name") == (3, 9)
    assert [at("layer", 0, "bottom", n) for n in range(3)] == [(4, 3), (4, 24), (5, 2)]
    assert at("layer", 1) == (6, 9) and at("layer", 2) == (6, 22) and at("layer", 1, "type") == (6, 10)
    sizes = [at("layer", 2, "convolution_param", "kernel_size", n) for n in range(3)]
    assert sizes == [(7, 36), (7, 45), (7, 65)]  # neither `nope` nor -1 is a value
    assert list(document.message.layer[2].convolution_param.kernel_size) == [3, 5, 7]
    # what is not there: the nearest that is
    assert at("layer", 2, "convolution_param", "pad", 0) == at("layer", 2, "convolution_param") == (7, 2)
    assert at("layer", 0, "pooling_param", "pad") == (3, 1) and at("layer", 7, "name") == (2, 1) and at() == (2, 1)
    assert at("layer", -1) == (2, 1)
    assert parse("# nothing\n").position(()) is None and parse("").position(("name",)) is None


# ---- hostile text ----------------------------------------------------------------------------------------------------------

MANY = 60_000


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, id=name)
        for name, text in {
            "braces": b"layer {" * MANY,
            "unknown braces": b"a {" * MANY,
            "lists": b"a: [" + b"[" * MANY,
            "closers": b"}" * MANY,
            "spaces": b" " * MANY * 20,
            "comments": b"#" * MANY * 20,
            "quotes": b"\"'" * MANY * 5,
            "open string": b'name: "' + b'\\"' * MANY * 5,
            "escapes": b"name: '" + b"\\q" * MANY + b"'",
            "stray escapes": b'\\"' * MANY * 5,
            "adjacent": b"name:" + b"'a'" * MANY,
            "unknown fields": b"\ta:1" * MANY,
            "unknown names": b"\n".join(b"kernel_siz%d: 1" % n for n in range(MANY // 4)),
            "twice": b"name:'a' " * MANY,
            "bad enums": b"layers{type:X}" * (MANY // 4),
            "bad list": b"input_dim:[" + b"x," * MANY + b"1]",
            "missing": b"layer{clip_param{}}" * (MANY // 10),
            "digits": b"input_dim:" + b"1" * MANY * 10,
            "hex digits": b"input_dim: 0x" + b"f" * MANY * 10,
            "float digits": b"layer{loss_weight:" + b"1" * MANY * 10 + b"}",
            "minus": b"input_dim:" + b"-" * MANY,
            "name": b"a" * MANY * 10 + b":1",
            "latin": b"#\xff\n" + b"a:1 " * MANY,
            "nul": b"a:1 " * MANY + b"\0",
        }.items()
    ],
)
def test_hostile_text_is_quick(text):
    start = time.process_time()
    try:
        findings = parse(text).findings
    except PrototxtError as error:
        findings = [error.finding]
    assert time.process_time() - start < 4
    assert len(findings) <= prototxt.MOST_FINDINGS + 1
    assert all(len(str(finding)) < 1000 for finding in findings)


def test_too_deep_is_said_and_deep_enough_is_not():
    kind = every_type()
    deepest = "opt_message{" * prototxt.DEEPEST + "}" * prototxt.DEEPEST
    assert read(deepest) == text_format.Parse(deepest, kind())
    for text in ("opt_message{" + deepest + "}", "no{" * (prototxt.DEEPEST + 1)):
        with pytest.raises(PrototxtError) as caught:
            parse(text, kind)
        assert caught.value.code == "too-deep"
    assert parse("no{" * prototxt.DEEPEST + "}" * prototxt.DEEPEST, kind).findings[0].code == "unknown-field"


def test_memory_is_a_small_multiple_of_the_text():
    parse("layer {}").position(("layer", 0))
    for text in (b"layer{}" * 40_000, b"input_dim:[" + b"1," * 100_000 + b"1]", b"input: 'ab'\n" * 20_000):
        tracemalloc.start()
        document = parse(text)
        assert document.position(("layer", 39_999)) is not None
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < 12 * len(text) + 6_000_000


def test_importing_it_is_light():
    code = "import sys, inspector.prototxt; print(sorted({'numpy', 'difflib', 'google.protobuf.text_format'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
