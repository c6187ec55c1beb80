"""The rules: what looks dangerous, by language. Raise VERSION when a rule changes.

Gaps are bounded ({0,200}, not *) so that no text makes a search slow.
"""

from __future__ import annotations

import dataclasses
import re

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Rule:
    """One row of the table.

    Attributes:
      name: its id; languages share ids where they share the weakness.
      languages: those it is for.
      severity: "low", "medium" or "high".
      strings: whether the regex sees what strings hold; comments it never sees. A match may
        not begin inside a string.
      regex: what hits.
      message: what is wrong, in one line.
    """

    name: str
    languages: tuple[str, ...]
    severity: str
    strings: bool
    regex: re.Pattern[str]
    message: str


_ALL = "python cpp java javascript go rust"
_SECRET = (
    r"(?:password|passwd|passphrase|secret|api_?key|access_?key|private_?key|auth_?token|token)"
)
_WORD = r"(?:password|passwd|secret|token|session_?id|nonce|salt|otp|api_?key)"
_RANDOM = (
    r"(?:Math\.random|\brandom\.(?:random|randint|choice|randrange|choices)|\bs?rand|\brand\.Intn?)"
)
# In capitals, but for "select *": "select one from" is English.
_SQL = (
    r"(?:SELECT\s[^\"'`\n]{0,200}\sFROM|select\s\*\sfrom|INSERT\s{1,9}INTO"
    r"|UPDATE\s[^\"'`\n]{0,100}\sSET|DELETE\s{1,9}FROM)\s"
)
_REST = r"[^\"'`\n]{0,300}"
# Calls that take a path.
_OPEN = (
    r"(?:\bopen|\bFile|\bFileReader|\bPaths\.get|\breadFile(?:Sync)?|\bos\.Open|\bReadFile"
    r"|\bFile::open|\bifstream\s\w{1,40}|\bfopen)"
)

# name; languages; severity; whether strings are seen; regular expression; message
_TABLE = [
    ("eval", "python", "high", False,
     r"(?<![\w.])(?<!def )(?:eval|exec)\s{0,9}\(", "runs text as code"),
    ("eval", "javascript", "high", False,
     r"(?<![\w.])(?<!function )eval\s{0,9}\(|\bnew\s{1,9}Function\s{0,9}\("
     r"|\bvm\.(?:runIn\w{1,20}|compileFunction|Script)\b", "runs text as code"),
    ("eval", "java", "high", False, r"\bScriptEngine\b", "runs text as code"),
    ("shell", "python", "high", False,
     r"\bos\.(?:system|popen)\s{0,9}\(|\bshell\s{0,9}=\s{0,9}True\b"
     r"|\bsubprocess\.get(?:status)?output\b", "runs a command through a shell"),
    ("shell", "cpp", "high", False,
     r"(?<![\w.>])(?:system|popen)\s{0,9}\(", "runs a command through a shell"),
    ("shell", "java", "high", False,
     r"\.getRuntime\(\)\s{0,99}\.exec\s{0,9}\(|\bnew\s{1,9}ProcessBuilder\b", "runs a command"),
    ("shell", "javascript", "high", True,
     r"\bchild_process\b['\"`]?\s{0,9}\)?\s{0,9}\.exec(?:Sync)?\b"
     r"|(?<![\w.])exec(?:Sync)?\s{0,9}\(|\brequire\s{0,9}\(\s{0,9}['\"`](?:node:)?child_process",
     "runs commands"),
    ("shell", "go", "high", True,
     r"\bexec\.Command(?:Context)?\([^\"`\n]{0,60}[\"`](?:/bin/)?(?:ba)?sh[\"`]",
     "runs a command through a shell"),
    ("shell", "rust", "high", True,
     r"\bCommand::new\(\s{0,9}\"(?:/bin/)?(?:ba)?sh\"", "runs a command through a shell"),
    ("buffer-overflow", "cpp", "high", False,
     r"(?<![\w.>])(?:strcpy|strcat|gets|sprintf|vsprintf)\s{0,9}\(",
     "writes without the length of its target"),
    ("buffer-overflow", "cpp", "high", True,
     r"(?<!\w)[fs]?scanf\s{0,9}\([^)\n]{0,200}%s", "%s reads without a width"),
    ("unsafe-deserialization", "python", "high", False,
     r"\b(?:pickle|cPickle|dill|marshal|shelve)\.(?:loads?|Unpickler|open)\b"
     r"|\byaml\.(?:unsafe_load|full_load)\s{0,9}\("
     r"|\byaml\.load\s{0,9}\((?![^)\n]{0,200}SafeLoader)", "its input can run code"),
    ("unsafe-deserialization", "java", "high", False,
     r"\bObjectInputStream\b|\bXMLDecoder\b", "its input can run code"),
    ("hard-coded-secret", _ALL, "medium", True,
     r"(?i:\b(?:[a-z0-9]{1,30}_){0,4}?" + _SECRET + r")\b(?:\s{0,9}:\s{0,9}[&\w' .*]{1,30})?"
     r"\s{0,9}(?:\[\]|):?[=:]\s{0,9}[bru]?[\"'`][^\"'`\s]{6,200}[\"'`]",
     "a secret is written in the code"),
    ("weak-hash", "python", "low", True,
     r"\bhashlib\.(?:md5|sha1|md4)\b|\bhashlib\.new\(\s{0,9}['\"](?:md5|sha1|md4)['\"]",
     "md5 or sha1: broken for security (task 162 asks for md5)"),
    ("weak-hash", "java", "low", True,
     r"\bMessageDigest\.getInstance\(\s{0,9}\"(?i:md5|md2|sha-?1)\"",
     "md5 or sha1: broken for security (task 162 asks for md5)"),
    ("weak-hash", "javascript", "low", True,
     r"\bcreateHash\(\s{0,9}['\"`](?i:md5|md4|sha-?1)['\"`]|\bmd5\s{0,9}\(",
     "md5 or sha1: broken for security (task 162 asks for md5)"),
    ("weak-hash", "go", "low", False, r"\b(?:md5|sha1)\.(?:New|Sum)\b",
     "md5 or sha1: broken for security (task 162 asks for md5)"),
    ("weak-hash", "cpp", "low", False,
     r"\b(?:MD5|SHA1|EVP_md5|EVP_sha1|MD5_Init|SHA1_Init)\s{0,9}\(",
     "md5 or sha1: broken for security (task 162 asks for md5)"),
    ("weak-hash", "rust", "low", False,
     r"\bmd5::compute\b|\b(?:Md5|Sha1)::(?:new|digest)\b",
     "md5 or sha1: broken for security (task 162 asks for md5)"),
    ("weak-cipher", "python", "high", False,
     r"\b(?:DES3?|ARC4|Blowfish)\.new\s{0,9}\(|\bMODE_ECB\b|\bmodes\.ECB\b",
     "DES, RC4 or ECB: broken for security"),
    ("weak-cipher", "java", "high", True,
     r"\bCipher\.getInstance\(\s{0,9}\"(?i:des\b|desede|rc4|arcfour|aes\"|[\w-]{1,20}/ecb)",
     "DES, RC4 or ECB (the default of \"AES\"): broken for security"),
    ("weak-cipher", "javascript", "high", True,
     r"\bcreate(?:Cipher|Decipher)(?:iv)?\(\s{0,9}['\"`](?i:des\b|rc4|[\w-]{1,20}-ecb)",
     "DES, RC4 or ECB: broken for security"),
    ("weak-cipher", "go", "high", False, r"\b(?:des|rc4)\.New\w{0,30}Cipher\b",
     "DES or RC4: broken for security"),
    ("weak-cipher", "cpp", "high", False, r"\bEVP_(?:des_\w{1,30}|rc4|aes_\d{1,3}_ecb)\b",
     "DES, RC4 or ECB: broken for security"),
    ("weak-random", "python cpp java javascript go", "medium", False,
     r"(?i:" + _WORD + r")[^\n;]{0,100}?" + _RANDOM + r"\s{0,9}\(",
     "a secret from numbers that can be guessed"),
    ("sql-injection", _ALL, "medium", True,
     r"[\"'`]" + _SQL + _REST + r"(?:['\"`]{1,3}\s{0,9}(?:\+|%(?!\w)|\.format\b)"
     r"|['\"`]\s{0,9}\.to_string\(\)\s{0,9}\+)", "SQL put together from text"),
    ("sql-injection", "python", "medium", True,
     r"\bf['\"]{1,3}" + _SQL + r"[^\n]{0,300}?\{", "SQL put together from text"),
    ("sql-injection", "javascript", "medium", True,
     r"`" + _SQL + r"[^`\n]{0,300}?\$\{", "SQL put together from text"),
    ("sql-injection", "rust go java", "medium", True,
     r"\b(?:format!|fmt\.Sprintf|String\.format)\s{0,9}\(\s{0,9}\"" + _SQL
     + r"[^\"\n]{0,300}?[{%]",
     "SQL put together from text"),
    ("tls-unchecked", "python", "high", False,
     r"\bverify\s{0,9}=\s{0,9}False\b|\b_create_unverified_context\b"
     r"|\bverify_mode\s{0,9}=\s{0,9}ssl\.CERT_NONE\b", "TLS certificates are not checked"),
    ("tls-unchecked", "javascript", "high", True,
     r"\brejectUnauthorized\s{0,9}:\s{0,9}false\b"
     r"|\bNODE_TLS_REJECT_UNAUTHORIZED\b[\"'\]]{0,2}\s{0,9}=\s{0,9}[\"']?0",
     "TLS certificates are not checked"),
    ("tls-unchecked", "go", "high", False,
     r"\bInsecureSkipVerify\s{0,9}[:=]\s{0,9}true\b", "TLS certificates are not checked"),
    ("tls-unchecked", "rust", "high", False,
     r"\bdanger_accept_invalid_(?:certs|hostnames)\s{0,9}\(\s{0,9}true",
     "TLS certificates are not checked"),
    ("tls-unchecked", "cpp", "high", False,
     r"\bCURLOPT_SSL_VERIFY(?:PEER|HOST)\s{0,9},\s{0,9}(?:0L?|false)\b|\bSSL_VERIFY_NONE\b",
     "TLS certificates are not checked"),
    ("tls-unchecked", "java", "high", False,
     r"\bALLOW_ALL_HOSTNAME_VERIFIER\b|\bNoopHostnameVerifier\b"
     r"|\bcheckServerTrusted\s{0,9}\([^)\n]{0,200}\)\s{0,9}\{\s{0,9}\}",
     "TLS certificates are not checked"),
    ("world-writable", "python cpp javascript go rust", "medium", True,
     r"(?i:\b(?:f?chmod(?:Sync)?|mkdir(?:all)?|WriteFile|OpenFile|from_mode|set_mode))"
     r"\s{0,9}\([^)\n]{0,200}?\b0o?[0-7]{0,2}[2367]\b", "others may write the file"),
    ("world-writable", "java", "medium", True,
     r"\.setWritable\s{0,9}\(\s{0,9}true\s{0,9},\s{0,9}false"
     r"|\bPosixFilePermissions\.fromString\(\s{0,9}\"[rwx-]{7}w", "others may write the file"),
    ("temp-file-race", "python", "medium", False,
     r"\btempfile\.mktemp\s{0,9}\(|\bos\.te?mpnam\s{0,9}\(",
     "another may create the file first"),
    ("temp-file-race", "cpp", "medium", False,
     r"(?<![\w.>])(?:mktemp|tmpnam|tempnam)\s{0,9}\(", "another may create the file first"),
    ("unsafe-code", "rust", "low", False,
     r"\bunsafe\s{0,9}(?:\{|fn\b|impl\b)", "the compiler does not check this block"),
    ("transmute", "rust", "medium", False,
     r"\btransmute(?:_copy)?\s{0,9}(?:\(|::\s{0,9}<)", "reinterprets memory unchecked"),
    ("unsafe-code", "go", "low", True, r"\bunsafe\.(?:Pointer|Slice|String|Add)\b",
     "goes round the type system"),
    ("path-traversal", _ALL, "low", True,
     _OPEN + r"\s{0,9}\(\s{0,9}(?:&?format!\([^\n]{0,60}\{"
     r"|f['\"][^'\"\n]{0,200}\{|`[^`\n]{0,200}\$\{"
     r"|[\"'`][^\"'`\n]{0,200}/[\"'`]\s{0,9}\+|[\w.]{1,60}\s{0,9}\+\s{0,9}\"/\")",
     "a path put together from text may lead out of its folder"),
]  # fmt: skip

RULES: list[Rule] = [
    Rule(name, tuple(languages.split()), severity, strings, re.compile(regex), message)
    for name, languages, severity, strings, regex, message in _TABLE
]
