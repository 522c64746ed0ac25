// Package keys is the life of an API key: it is created, listed, changed,
// disabled, rotated and revoked by a [Manager], which also keeps the users that
// keys belong to and the settings of their organizations.
//
//	mgr, err := keys.New(memstore.New(), nil)
//	if err != nil { ... }
//	err = mgr.PutUser(ctx, &store.User{Org: "acme", ID: "u1", Email: "ada@acme.example"})
//	tok, key, err := mgr.Create(ctx, keys.CreateParams{Org: "acme", User: "u1", Name: "export"})
//	fmt.Println(tok.Reveal()) // shown once, to the person who asked for it
//
// A Manager owns the [store.Cache] that requests are verified with, the
// [token.Format] of the tokens and the clock. [Manager.Verifier] hands the first
// two to the middleware. The cache forgets what a method wrote before the method
// returns, so a key that was revoked here is refused here from then on; other
// processes that share the store follow within [store.CacheOptions.TTL], or
// within a poll of [store.CacheOptions.Feed]. A Manager itself reads the store and
// never the cache.
//
// A Manager is trusted code, to be called by the host program and by handlers
// that have decided who is asking. It enforces what binds everybody: the cap on
// keys, the restriction by user, the tiers, the form of names, scopes and limits,
// and that a few acts are an owner's. It does not decide whether an [Actor] is
// who the Actor claims to be, nor which keys and organizations the Actor may see:
// put the signed-in user into [Ref.User] and [CreateParams.User].
//
// What owners are shown comes from the rules that decide about requests:
// [Manager.Table] has the status of each key, [Manager.Explain] why one works or
// does not, and [Manager.Preview] what settings would change before they are put
// in force.
//
// Every act can be told to an audit trail ([Options.Audit]), acts of people and of
// programs alike, done or refused; and it can be required to be, so that nothing
// is done that the trail does not know of ([Options.AuditRequired]).
//
// The package never authenticates or counts a request, speaks no HTTP, keeps no
// token, deletes no user, and runs nothing in the background but the polls of a
// Feed, until [Manager.Close]: call [Manager.Purge] from a timer of the host. It
// stores no state that can be computed: whether a key is expired, or disabled by
// the restriction of its organization, is what [StatusOf] finds at that moment.
//
// Numbers such as S53 and D27 are those of REQUIREMENTS.md in the repository.
package keys
