package audit

import "regexp"

// jwt finds the compact forms of RFC 7515 section 3.1 and RFC 7516 section 3.1, whose
// header begins with {" in base64url.
var jwt = regexp.MustCompile(`eyJ[\w-]+\.[\w.-]+`)

// CutJWTs returns text with an ellipsis in place of whatever looks like a JSON Web
// Token. It is for those who fill an [Event] with texts that a client chose, such as
// the User-Agent: people put credentials where they do not belong, and a trail must
// not keep them.
func CutJWTs(text string) string { return jwt.ReplaceAllLiteralString(text, "…") }
