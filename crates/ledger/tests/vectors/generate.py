#!/usr/bin/env python3
"""Freezes what a real PostgreSQL prints for `$1::jsonb::text`, and what it refuses.

    PG_BIN=<directory of initdb, pg_ctl and psql> python3 generate.py        (as any user but root)

Without PG_BIN the programs are looked up on PATH. The script makes a throw-away cluster with a unix socket in a
temporary directory, asks it about every input below, writes `jsonb.jsonl` beside itself and removes the cluster.
The inputs are a fixed list plus texts drawn from a fixed seed: the same PostgreSQL gives the same file.
README.md describes the format.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20260102
# Longer outputs are kept as length and SHA-256; longer inputs as a list of [unit, repetitions].
LONGEST_VERBATIM = 2000


# ---------------------------------------------------------------------------------------------------------------
# Inputs. An input is a text, or a list of [unit, repetitions].

SCALARS = [
    "null", "true", "false", "0", "1", "\"\"", "[]", "{}", " null ", "\t\n\r null\r\n\t", "[ ]", "{ }", "[null]",
    "[true,false,null]", "[[[]]]", "[{}]", "{\"a\":{}}", "{\"a\":[]}", "[1,2,3]", "[ 1 , 2 ,3 ]", "{ \"a\" : 1 }",
    "{\"a\":null}", "[[],[[]],[[[]]]]", "[\"a\",1,null,true,{\"b\":[2.50]}]",
]

KEYS = [
    # ordered by length in bytes, then by bytes
    '{"b":1,"a":2}', '{"bb":1,"a":2}', '{"aa":1,"b":2}', '{"":1,"a":2}', '{"a":2,"":1}', '{"B":1,"a":2}',
    '{"a":1,"B":2}', '{"z":1,"aa":2,"y":3,"bbb":4}', '{"10":1,"9":2}', '{"1":1,"01":2}', '{"a b":1,"ab":2}',
    '{"é":1,"z":2}', '{"é":1,"zz":2}', '{"é":1,"zzz":2}', '{"ß":1,"é":2}', '{"zz":1,"é":2}', '{"😀":1,"abcd":2}',
    '{"😀":1,"abcde":2}', '{"abc":2,"😀":1}', '{"日":1,"ab":2}', '{"日":1,"abc":2}', '{"日":1,"abcd":2}',
    '{"\\u00e9":1,"z":2}', '{"\\u00e9":1,"zz":2}', '{"\\ud83d\\ude00":1,"\uffff":2}', '{"\uffff":2,"😀":1}',
    '{"\\u0001":1,"\\u0002":2}', '{"\\t":1,"a":2}', '{"\\n":1,"\\t":2," ":3}', '{"\\"":1,"!":2}', '{"\\\\":1,"[":2}',
    '{"a":1,"A":2,"á":3}', '{"\u007f":1,"~":2}', '{"_":1,"-":2,".":3,"a":4,"0":5}',
    # the last duplicate wins, at every depth and under every spelling of the same key
    '{"a":1,"a":2}', '{"a":1,"a":2,"a":3}', '{"a":1,"b":2,"a":3}', '{"a":{"x":1},"a":{"y":2}}', '{"a":1,"a":null}',
    '{"a":[1],"a":{}}', '{"a":1,"\\u0061":2}', '{"\\u0061":1,"a":2}', '{"é":1,"\\u00e9":2}', '{"":1,"":2}',
    '{"o":{"k":1,"k":2}}', '[{"k":1,"k":2}]', '{"a":1,"bb":2,"a":3,"bb":4,"c":5}', '{"/":1,"\\/":2}',
    '{"a":1e3,"a":1.0}', '{"\\ud83d\\ude00":1,"😀":2}',
]

NUMBERS = [
    "0", "-0", "1", "-1", "10", "100", "123456789", "-123456789", "1234", "12345", "99999999", "100000000", "10000", "0.0",
    "-0.0", "0.00", "-0.000", "1.0", "1.00", "1.50", "-1.50", "1.5", "0.5", "0.05", "0.0005", "0.00005", "0.000050",
    "123.456", "123.4560", "10000.0001", "9999.9999", "0.1234567890123456789012345678901234567890", "1e0", "1e1", "1e3",
    "1E3", "1e+3", "1E+3", "1e03", "1e+03", "1e-3", "1E-3", "1e-03", "1e-0", "1e+0", "0e0", "0e5", "0e-5", "-0e5",
    "-0e-5", "0.0e5", "0.0e1", "0.00e1", "0.0e-2", "1.0e3", "1.50e1", "1.50e2", "1.50e3", "1.5e-1", "1.5e-3", "15e-1",
    "150e-2", "150e-1", "1500e-3", "0.001e3", "0.001e2", "0.001e4", "0.0010e3", "0.0010e4", "0.0010e5", "-1e3", "-1e-3",
    "12e4", "123e4", "1234e4", "12345e4", "1.2e4", "1.23e4", "1.234e4", "1.2345e4", "1.23456e4", "1.234567e4", "1e4",
    "1e5", "1e6", "1e7", "1e8", "1e-4", "1e-5", "1e-6", "1e-7", "1e-8", "1e15", "1e16", "1e17", "1e20", "1e21", "1e22",
    "9007199254740991", "9007199254740992", "9007199254740993", "9223372036854775807", "9223372036854775808",
    "-9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616",
    "123456789012345678901234567890", "-123456789012345678901234567890.123456789", "1.7976931348623157e308", "1e308",
    "1e309", "-1e309", "5e-324", "2.2250738585072014e-308", "1e-400", "1e400", "3.141592653589793", "2.718281828459045",
    "0.1", "0.2", "0.30000000000000004", "100000000000000000000000", "1e100", "1e-100", "-1e-100", "1.10e100",
    "0.000000000000000000000000000000000000000000000000000000000000000000001",
    "1000000000000000000000000.000000000000000000000000000000", "1e2000", "1e-1999", "1e131070", "1e131071", "9e131071",
    "9.99e131071", "99e131070", "0.1e131072", "0.01e131073", "-1e131071", "1e-16383", "-1e-16383", "0e-16383", "1.0e-16382",
    "10e-16383", "0.5e-16382", "0e131072", "0e200000", "0.0e200000", "0e1073741822", "-0e1073741822", "1e0000000000000000003",
    "1e-0000000000000000003", "0.00000e5", "0.000001e5", "1.000000e5", "1.0000000e5",
]

BAD_NUMBERS = [
    # not JSON
    "+1", "01", "00", "-01", "00.5", "1.", ".5", "-.5", "-", "--1", "1e", "1e+", "1e-", "1.e3", ".e3", "e3", "1ee3", "1e3.5",
    "1.2.3", "0x10", "1_000", "1,000", "1a", "1.0f", "NaN", "-NaN", "Infinity", "-Infinity", "1/2", "1 2", "- 1", "1e 3", "1 e3",
    "٣", "１", "1e٣", "0b1", "0o7", "1e3e", "-e3", "1.-3", "0e", "-0e", "0.", "-0.", "1E", "1.5E+",
    # JSON, but outside numeric
    "1e131072", "-1e131072", "10e131071", "1.5e131072", "0.1e131073", "1e200000", "1e-16384", "-1e-16384", "0e-16384",
    "0.0e-16383", "0.5e-16383", "1.0e-16383", "1e-20000", "1e1073741822", "1e1073741823", "0e1073741823", "0e-1073741823",
    "1e-1073741822", "1e2147483647", "1e2147483648", "1e-2147483648", "1e-2147483649", "0e2147483648", "0e99999999999999999999",
    "1e9223372036854775807", "1e9223372036854775808", "1e-9223372036854775809", "1e99999999999999999999",
    "-1e-99999999999999999999",
]

STRINGS = [
    '""', '"a"', '"a b"', '" "', '"\\""', '"\\\\"', '"\\/"', '"/"', '"\\b\\f\\n\\r\\t"', '"\\\\\\""', '"\\\\n"', '"\\\\u0041"',
    '"\\u0041"', '"\\u005c"', '"\\u005C"', '"\\u0022"', '"\\u002f"', '"\\u002F"', '"\\u0008"', '"\\u0009"', '"\\u000a"', '"\\u000A"',
    '"\\u000b"', '"\\u000c"', '"\\u000d"', '"\\u000e"', '"\\u0001"', '"\\u001f"', '"\\u001F"', '"\\u0020"', '"\\u007f"', '"\u007f"',
    '"\\u0080"', '"\\u009f"', '"\\u00a0"', '"\\u00e9"', '"\\u00E9"', '"é"', '"e\u0301"', '"\\u0065\\u0301"', '"ß"', '"日本語"',
    '"\\u65e5\\u672c"', '"\\u2028\\u2029"', '"\u2028\u2029"', '"\ufeff"', '"\\ufeff"', '"\\ufffe"', '"\\uffff"', '"\\ufdd0"',
    '"\uffff"', '"\ufffd"', '"\\ud7ff"', '"\\ue000"', '"\ue000"', '"😀"', '"\\ud83d\\ude00"', '"\\uD83D\\uDE00"',
    '"\\uD83d\\uDe00"', '"\\ud800\\udc00"', '"\\udbff\\udfff"', '"\U0010ffff"', '"\U0001f468\u200d\U0001f469"',
    '"\\ud83d\\ude00\\ud83d\\ude01"', '"a\\ud83d\\ude00b"', '"<&>"', "\"'\"", '"`$%^"', '"\\u003c\\u0026\\u003e"', '"C:\\\\u0000"',
    '"C:\\\\\\\\u0000"', '"\\\\ud800"', '"null"', '"1e3"', '"{\\"a\\": 1}"', '"a\\u0000b"'.replace("\\u0000", "\\u0010"),
    '"\\u200b\\u200e\\u202e"', '"=HYPERLINK(\\"x\\")"', '"resource://api?x=1&y=<2>"',
] + ['"\\u%04x"' % code for code in range(1, 0x20)]

BAD_STRINGS = [
    '"', '"a', "'a'", '"\\"', '"\\a"', '"\\v"', '"\\0"', '"\\x41"', '"\\\'"', '"\\ "', '"\\', '"\\u"', '"\\u1"', '"\\u12"', '"\\u123"',
    '"\\u12g4"', '"\\u 041"', '"\\U0041"', '"\\u+041"', '"\\u-041"', '"\\u0x41"', '"\\u{41}"', '"a\nb"', '"a\tb"', '"a\rb"', '"a\u0001b"',
    '"a\u001fb"', '"\\ud800"', '"\\udbff"', '"\\udc00"', '"\\udfff"', '"\\ud800a"', '"\\ud800\\n"', '"\\ud800\\u0041"', '"\\ud800\\ud800"',
    '"\\ud800\\udbff"', '"\\ud800\\ue000"', '"\\udc00\\ud800"', '"\\ud83d\\ude00\\ude00"', '"\\ud83d\\ud83d\\ude00"', '"\\ud800\\', '"\\ud800\\u',
    '"\\ud800\\udc0"', '"\\ud800\\udc0g"', '"\\ud800', '{"\\ud800":1}', '{"\\udc00":1}', '"\\u00é9"', '"a"b', '"a""b"', '"\\\n"',
    # U+0000 is JSON, but jsonb cannot hold it
    '"\\u0000"', '"a\\u0000b"', '["\\u0000"]', '{"\\u0000":1}', '{"a\\u0000":1}', '{"a":{"b":["\\u0000"]}}', '"\\\\\\u0000"',
    '"\\u0000\\u0000"', '{"a":"\\u0000","a":1}',
    # a refused value is refused also where a later duplicate would win
    '{"a":"\\ud800","a":1}', '{"a":1e200000,"a":1}', '{"a":1e-16384,"a":1}',
]

BAD_STRUCTURE = [
    "", " ", "\n", "[", "]", "{", "}", "[[", "[1", "[1,", "[,1]", "[1,]", "[1,,2]", "[,]", "[1 2]", "[1;2]", "(1)", "[1]]", "[1]x", "[1] 2",
    "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{,}", "{\"a\"}", "{\"a\",1}", "{\"a\" 1}", "{a:1}", "{1:1}", "{null:1}",
    "{\"a\":1 \"b\":2}", "{\"a\"::1}", "{:1}", "{\"a\":}", "{[]:1}", "{'a':1}", "[}", "{]", "[{]}", "{\"a\":1]", "[1}", "nul", "nulll", "Null",
    "NULL", "tru", "truee", "True", "fals", "FALSE", "undefined", "none", "true false", "null,", ",null", "//x\n1", "/*x*/1", "1//x", "#", "\ufeff1",
    "\u00a01", "1\u00a0", "\u000b1", "1\u000b", "\u000c1", "1\u000c", "\u20281", "[1\u00a0,2]", "{\"a\":1}{\"b\":2}", "[]{}", "true1", "1true", "\"a\"1",
    "nulltrue", "[truefalse]", "@", "\\", "\\u0031", "é", "😀", "[1,\u0001]", "\u0001", "\u007f", "1\u007f", "-", "[-]", ":", "[:]", "[\"a\":1]",
]

LONG = [
    [["9", 131072]], [["9", 131073]], [["0.", 1], ["1", 16383]], [["0.", 1], ["1", 16384]], [["0.", 1], ["0", 16383]],
    [["0.", 1], ["0", 16384]], [["9", 131072], [".", 1], ["9", 16383]], [["9", 131072], [".", 1], ["9", 16384]],
    [["1", 1], ["0", 131071]], [["1", 1], ["0", 131072]], [["1", 131073], ["e-1", 1]], [["1", 140000], ["e-16383", 1]],
    [["0.", 1], ["0", 20000], ["1e20000", 1]], [["0.", 1], ["0", 20000], ["1e3617", 1]], [["0.", 1], ["0", 20000], ["1e3618", 1]],
    [["0.", 1], ["0", 131080], ["1e131080", 1]], [["1", 20000], ["e-16384", 1]], [["1", 1], ["0", 16384], ["e-16384", 1]],
    [["1e", 1], ["0", 3000], ["5", 1]], [["[", 512], ["]", 512]], [["{\"a\":", 511], ["{}", 1], ["}", 511]],
    [["[{\"k\":", 256], ["1", 1], ["}]", 256]], [["[", 512], ["}", 512]], [["[", 600]], [["\"", 1], ["é\\n\\u0001/", 5000], ["\"", 1]],
    [["{", 1], ["\"k\":1,", 3000], ["\"k\":2}", 1]], [["[", 1], ["1e3,", 3000], ["-0]", 1]], [[" ", 5000], ["1", 1], ["\n", 5000]],
    [["\"", 1], ["\\\\", 6000], ["\"", 1]], [["{\"", 1], ["k", 70000], ["\":1,\"", 1], ["k", 69999], ["\":2}", 1]],
]

EVENTS = [
    '[{"policy":"p1"}]', '{"resource":"resource://api","requested_scopes":["read"]}', '[{"reason":"scope not granted"}]',
    '{"latency_ms":12,"response_bytes":0,"gateway_status":200,"upstream_status":200,"result_class":"success","method":"GET"}',
    '{"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","change_kind":"delete","changed_fields":[]}',
    '{"delegation_chain":[{"application_id":"a","agent_session_id":"s","delegation_edge_id":""}],"delegation_hop_count":1}',
    '{"z":1.0,"a":1e3,"b":"<&>","emoji":"\\ud83d\\ude00","a":-0}',
]


def number(rng):
    text = rng.choice(["", "", "", "-"])
    text += rng.choice(["0", str(rng.randrange(1, 10)), str(rng.randrange(1, 10**6)), str(rng.randrange(1, 10 ** rng.randrange(1, 30)))])
    if rng.random() < 0.5:
        digits = "".join(rng.choice("0000123456789") for _ in range(rng.randrange(1, 9)))
        text += "." + digits
    if rng.random() < 0.4:
        text += rng.choice("eE") + rng.choice(["", "+", "-"]) + rng.choice(["", "0"]) + str(rng.randrange(0, 40))
    return text


def string(rng):
    out = ['"']
    for _ in range(rng.choice([0, 1, 1, 2, 3, 5, 8])):
        kind = rng.randrange(9)
        if kind <= 2:
            out.append(rng.choice("abcABC012 _-./:<&>'"))
        elif kind == 3:
            out.append(rng.choice(['\\"', "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t"]))
        elif kind == 4:
            out.append(rng.choice("éßñ日本語\u2028\u00a0\u007f\ufeff"))
        elif kind == 5:
            out.append(chr(rng.choice([0x1F600, 0x10000, 0x10FFFF, rng.randrange(0x10000, 0x110000)])))
        elif kind == 6:
            code = rng.choice([rng.randrange(1, 0x20), rng.randrange(0x20, 0x100), rng.randrange(0x100, 0xD800), rng.randrange(0xE000, 0x10000)])
            text = "%04x" % code
            out.append("\\u" + (text.upper() if rng.random() < 0.5 else text))
        elif kind == 7:
            out.append("\\u%04x\\u%04X" % (rng.randrange(0xD800, 0xDC00), rng.randrange(0xDC00, 0xE000)))
        else:
            out.append(chr(rng.choice([rng.randrange(0x80, 0xD800), rng.randrange(0xE000, 0x10000)])))
    out.append('"')
    return "".join(out)


def space(rng):
    return "".join(rng.choice(" \t\n\r") for _ in range(rng.choice([0, 0, 0, 1, 1, 2])))


def value(rng, depth):
    kind = rng.randrange(10 if depth > 0 else 6)
    if kind == 0:
        text = rng.choice(["null", "true", "false"])
    elif kind <= 2:
        text = number(rng)
    elif kind <= 5:
        text = string(rng)
    elif kind <= 7:
        text = "[" + ",".join(value(rng, depth - 1) for _ in range(rng.randrange(0, 5))) + space(rng) + "]"
    else:
        # A small pool of keys, so that duplicates and near neighbours in the order are common.
        pool = ['"a"', '"b"', '"aa"', '"ab"', '"\\u0061"', '""', '"é"', '"zz"', '"日"', '"abc"', '"😀"', '"abcd"', '"Z"', '"\\n"'] + [string(rng)]
        fields = [space(rng) + rng.choice(pool) + space(rng) + ":" + value(rng, depth - 1) for _ in range(rng.randrange(0, 6))]
        text = "{" + ",".join(fields) + space(rng) + "}"
    return space(rng) + text + space(rng)


def mutated(rng, text):
    """One to three edits of a valid text: most results are refused, some are other valid texts."""
    alphabet = '{}[]:,"\\ \t\n0123456789-+.eEu/abnrtful\u0001é😀\u007f'
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = rng.randrange(0, len(text) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            text = text[:at] + text[at + 1:]
        elif kind == 1:
            text = text[:at] + rng.choice(alphabet) + text[at:]
        elif kind == 2:
            text = text[:at] + rng.choice(alphabet) + text[at + 1:]
        else:
            text = text[:at]
    return text


def inputs():
    rng = random.Random(SEED)
    fixed = SCALARS + KEYS + NUMBERS + BAD_NUMBERS + STRINGS + BAD_STRINGS + BAD_STRUCTURE + LONG + EVENTS
    fixed += ["[%s]" % n for n in NUMBERS[:20]] + ['{"n":%s}' % n for n in BAD_NUMBERS[:20]]
    drawn = [value(rng, 4) for _ in range(260)] + [number(rng) for _ in range(140)] + [string(rng) for _ in range(100)]
    drawn += [mutated(rng, value(rng, 3)) for _ in range(200)] + [mutated(rng, number(rng)) for _ in range(80)]
    drawn += [mutated(rng, string(rng)) for _ in range(80)]
    seen = set()
    for item in fixed + drawn:
        text = item if isinstance(item, str) else "".join(unit * count for unit, count in item)
        if text not in seen:
            seen.add(text)
            yield item, text


# ---------------------------------------------------------------------------------------------------------------
# PostgreSQL.

FUNCTION = """
create function answer(input bytea) returns text language plpgsql as $$
begin
  return 'ok ' || encode(convert_to((convert_from(input, 'UTF8')::jsonb)::text, 'UTF8'), 'hex');
exception when others then
  return 'no ' || sqlstate;
end $$;
create table question (number int primary key, input bytea not null);
"""


def program(name):
    directory = os.environ.get("PG_BIN")
    found = os.path.join(directory, name) if directory else shutil.which(name)
    if not found or not os.path.exists(found):
        sys.exit("`%s` not found: set PG_BIN to the directory that holds it" % name)
    return found


def ask(texts):
    root = tempfile.mkdtemp(prefix="jsonb-vectors-")
    data = os.path.join(root, "data")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    try:
        subprocess.run([program("initdb"), "-D", data, "-U", "oracle", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"], check=True, **quiet)
        options = "-c listen_addresses='' -c fsync=off -c unix_socket_directories='%s'" % root
        subprocess.run([program("pg_ctl"), "-D", data, "-w", "-l", os.path.join(root, "log"), "-o", options, "start"], check=True, **quiet)
        try:
            psql = [program("psql"), "-h", root, "-U", "oracle", "-d", "postgres", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
            rows = "".join("%d\t\\\\x%s\n" % (i, text.encode().hex()) for i, text in enumerate(texts))
            script = FUNCTION + "copy question from stdin;\n" + rows + "\\.\n"
            subprocess.run(psql, input=script, text=True, check=True, stdout=subprocess.DEVNULL)
            def query(sql):
                return subprocess.run(psql + ["-c", sql], check=True, capture_output=True, text=True).stdout.split("\n")
            version = query("show server_version")[0].split(" ")[0]
            answers = [line for line in query("select answer(input) from question order by number") if line]
        finally:
            subprocess.run([program("pg_ctl"), "-D", data, "-w", "-m", "immediate", "stop"], check=True, **quiet)
    finally:
        shutil.rmtree(root)
    return version, answers


def main():
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        sys.exit("PostgreSQL does not run as root: use another user")
    items = list(inputs())
    version, answers = ask([text for _, text in items])
    if len(answers) != len(items):
        sys.exit("%d answers to %d questions" % (len(answers), len(items)))
    output = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "jsonb.jsonl")
    accepted = 0
    with open(output, "w", encoding="ascii", newline="\n") as file:
        for (item, _), answer in zip(items, answers):
            line = {"input": item} if isinstance(item, str) else {"input_parts": item}
            if answer.startswith("ok "):
                accepted += 1
                text = bytes.fromhex(answer[3:])
                if len(text) <= LONGEST_VERBATIM:
                    line["output"] = text.decode()
                else:
                    line["output_bytes"] = len(text)
                    line["output_sha256"] = hashlib.sha256(text).hexdigest()
            else:
                line["error"] = True
                line["sqlstate"] = answer[3:]
            file.write(json.dumps(line) + "\n")
    print("PostgreSQL %s: %d inputs, %d accepted, %d refused" % (version, len(items), accepted, len(items) - accepted))


if __name__ == "__main__":
    main()
