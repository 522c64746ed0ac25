// Package audit is the trail of what was done to keys, users and settings: what,
// by whom, to what, and how it ended.
//
// The Manager of package keys hands an [Event] to a [Sink] for each act, whether a
// person or a program asked for it. A ready Sink writes JSON lines with the field
// names of the Elastic Common Schema, so that a SIEM takes them as they are:
//
//	f, err := os.OpenFile("audit.log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
//	if err != nil { ... }
//	mgr, err := keys.New(st, &keys.Options{Audit: audit.NewJSON(f), AuditRequired: true})
//
// An Event has no token and no digest. It does have names, e-mails and addresses
// of people, which a trail is for: who may read it is the host's to decide.
//
// The package keeps no trail of its own: it does not rotate files, sign or chain
// lines, buffer, or try again. A Sink that should do so is one method.
//
// Numbers such as S53 and D27 are those of REQUIREMENTS.md in the repository.
package audit
