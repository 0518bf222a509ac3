"""What must become of each proxy in the folder voms/ that tools/make-certs --all makes."""

from __future__ import annotations

ALICE = "/DC=org/DC=panda-test/O=Grid/CN=Alice Adams"
MEMBER = "/testvo/Role=NULL"
ACCEPTED = {  # name: (groups, limited, depth)
    "default": ((MEMBER,), False, 1),
    "prod": (("/testvo/Role=production", MEMBER), False, 1),
    "group": (("/testvo/higgs/Role=production", MEMBER), False, 1),
    "pilot": (("/testvo/Role=pilot",), False, 1),
    "limited": ((MEMBER,), True, 1),
    "depth2": ((MEMBER,), False, 2),
    "two_vos": ((MEMBER, "/physics/higgs/Role=NULL"), False, 1),
    "by_subject": ((MEMBER,), False, 1),
    "target_here": ((MEMBER,), False, 1),
}
REFUSED = {
    "expired_ac": "expired at",
    "early_ac": "not valid yet",
    "sha1": "signed with SHA-1",
    "md5": "signed with MD5",
    "two_algorithms": "two signature algorithms",
    "other_vo": "not of its organisation",
    "unknown_vo": "knows no VOMS server of othervo",
    "path_as_vo": "does not name its organisation",
    "target_elsewhere": "for elsewhere.test, and this server is localhost",
    "target_nobody": "for nobody",
    "other_issuer": "another issuer",
    "without_signer": "signer is missing",
    "critical_extension": "1.2.3.4",
    "no_groups": "0 groups",
    "wrong_server": "other.test, .* is no VOMS server of testvo",
    "revoked_signer": "revoked",
    "expired_signer": "certificate of the VOMS server is not valid now",
    "untrusted_signer": "no VOMS server of testvo|no authority",
    "signed_by_user": "is no VOMS server of testvo",
    "wrong_signature": "signature is wrong",
    "wrong_holder": "given to another certificate",
    "one_bad_of_two": "expired at",
    "damaged": "VOMS attributes refused",
    "empty": "0 attribute certificates",
}
