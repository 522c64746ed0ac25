package storetest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keystile/keystile/store"
)

// texts are strings that a store must keep as they are.
var texts = []string{
	" ", "  both ends  ", "\t", "a\nb\r\nc\r", "\x01\x1b[31m\x7f", "'; DROP TABLE keys; --", `"a","b"`, `\'\"\\`, "%_?$1:name@p",
	"ada", "Ada", "ADA", "é", "e\u0301", "É", "ı", "İ", "ß", "ﬁ", "fi", "日本語", "العربية", "😀👩‍👩‍👧", "\ufeffbom", "\u200b", "\u2028",
	"\ufffd", "\uffff", "\U0010ffff", "null", "NULL", "0", "00", "1e3", "true", "{}", "[]", "\\x41", "\\0", "%00", "a,b", "a b",
}

// badTexts are strings that a store must refuse.
var badTexts = []string{
	"\x00", "a\x00b", "end\x00", "\xff", "a\xc3", "\xc0\x80", "\xed\xa0\x80", "caf\xe9", "\xf4\x90\x80\x80", "\x80",
}

var textCases = []testCase{
	{
		name: "texts are kept",
		rule: "Strings are kept byte for byte, whatever script, blank, quote or control character they have, and two that differ are two (D16, D30).",
		run: func(s *suite) {
			for n, text := range texts {
				u := &store.User{Org: text, ID: text, Email: text, Tier: text}
				s.putUser(u)
				s.same(s.user(text, text), u, "Users of %q", text)

				k := newKey(u, n)
				k.ID, k.Name, k.Family, k.Scopes = text, text, text, []string{text, text, "", text}
				s.stored(s.insert(k), fmt.Sprintf("insertion of %q", text))
				k.Name, k.Scopes = text+text, []string{"", text}
				s.update(k)
				s.stored(k, fmt.Sprintf("an update with %q", text))
				s.lists(store.Query{Org: text, User: text, ID: text, Name: text}, text)

				set := zeroSettings(text)
				set.RestrictUsers = true
				s.putSettings(set)
				s.same(s.settings(text), set, "Settings of %q", text)
			}
			if n := len(s.keys(store.Query{})); n != len(texts) {
				s.errorf("Keys: got %d keys, want %d", n, len(texts))
			}
			one := s.addUser("acme", "ada")
			k := newKey(one, 1000)
			k.Scopes = slices.Clone(texts)
			s.stored(s.insert(k), "insertion of a key with many scopes")
		},
	},
	{
		name: "empty texts",
		rule: "Every string may be empty but the IDs of key, user and organization. Scopes keep their order and what is there twice; nil and empty are the same, and are not one empty scope.",
		run: func(s *suite) {
			u := &store.User{Org: "o", ID: "u"}
			s.putUser(u)
			s.same(s.user("o", "u"), u, "Users")
			for n, scopes := range [][]string{nil, {}, {""}, {"", ""}, {"b", "a", "b"}} {
				k := newKey(u, n)
				k.Name, k.Family, k.Scopes = "", "", scopes
				s.stored(s.insert(k), fmt.Sprintf("insertion with scopes %q", scopes))
			}
			k := newKey(u, 10)
			k.ID = ""
			s.failed(s.Store.InsertKey(s.ctx, k, nil, noCap), "InsertKey without an ID")
			k = newKey(u, 11)
			k.Digest = [32]byte{}
			s.failed(s.Store.InsertKey(s.ctx, k, nil, noCap), "InsertKey without a digest")
			for _, u := range []*store.User{{Org: "o"}, {ID: "u"}} {
				s.failed(s.Store.PutUser(s.ctx, u), "PutUser without an Org or an ID")
				if err := s.Store.InsertKey(s.ctx, newKey(u, 12), nil, noCap); err == nil {
					s.errorf("InsertKey without an Org or a User: no error")
				}
			}
			s.failed(s.Store.UpdateSettings(s.ctx, zeroSettings("")), "UpdateSettings without an Org")
		},
	},
	{
		name: "texts that are refused",
		rule: "A string with a NUL or that is not valid UTF-8 is refused with an error before anything is written, and never cut off.",
		run: func(s *suite) {
			for _, bad := range badTexts {
				s.refusesText(bad, func(err error, what string) {
					s.failed(err, "%s of %q", what, bad)
				})
			}
		},
	},
	{
		name: "texts that nothing has",
		rule: "To ask for a string that is never kept is no error: no row has it (D28).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			k := s.insert(newKey(u, 1))
			for _, bad := range append(slices.Clone(badTexts), "acme\x00", "ada\x00", k.ID+"\x00", "key\x00", strings.Repeat("x", store.MaxText+1)) {
				for _, q := range []store.Query{{Org: bad}, {User: bad}, {ID: bad}, {Name: bad}, {ID: k.ID, Org: bad}} {
					s.lists(q)
				}
				for _, q := range []store.UserQuery{{Org: bad}, {Org: "acme", ID: bad}} {
					s.listsUsers(q)
				}
				s.same(s.settings(bad), zeroSettings(bad), "Settings of %s", short(bad))
			}
		},
	},
	{
		name: "long texts",
		rule: "Strings up to MaxID, MaxText for those that name no row, are kept whole; longer ones are refused, never shortened. Scopes have MaxText together.",
		run: func(s *suite) {
			id := func(mark string) string { return mark + strings.Repeat("é", (store.MaxID-len(mark))/2) }
			text := strings.Repeat("0123456789abcdef", store.MaxText/16)
			u := &store.User{Org: id("oo"), ID: id("uu"), Email: text, Tier: text}
			s.putUser(u)
			s.same(s.user(u.Org, u.ID), u, "Users with the longest strings")

			k := fullKey(u, 7)
			k.ID, k.Family, k.Name = id("kk"), id("ff"), text
			k.Scopes = []string{text[:store.MaxText/2], text[store.MaxText/2:]}
			s.stored(s.insert(k), "insertion with the longest strings")
			k.Scopes = strings.Split(strings.Repeat("s", 1000), "")
			s.update(k)
			s.stored(k, "an update with 1000 scopes")
			set := zeroSettings(u.Org)
			s.putSettings(set)
			s.same(s.settings(u.Org), set, "Settings with the longest string")
			s.lists(store.Query{Name: text, Revoked: true}, k.ID)
			s.lists(store.Query{Name: text[1:] + "x", Revoked: true})

			s.refusesText(strings.Repeat("x", store.MaxText+1), func(err error, what string) {
				s.failed(err, "%s of a string longer than MaxText", what)
			})
			long := strings.Repeat("x", store.MaxID+1)
			s.failed(s.Store.PutUser(s.ctx, &store.User{Org: "acme", ID: long}), "PutUser with an ID longer than MaxID")
			k = fullKey(s.user("acme", "ada"), 2)
			k.Scopes = []string{text, "x"}
			s.failed(s.Store.InsertKey(s.ctx, k, nil, noCap), "InsertKey with scopes longer than MaxText together")
			s.absent(k, "a refused insertion")
			k.ID, k.Scopes = long, nil
			s.failed(s.Store.InsertKey(s.ctx, k, nil, noCap), "InsertKey with an ID longer than MaxID")
			s.absent(k, "a refused insertion")
		},
	},
}

// refusesText gives bad to every method that writes strings, and what each
// answers to check, and checks that nothing was written. It leaves a user "ada"
// of "acme" behind.
func (s *suite) refusesText(bad string, check func(err error, what string)) {
	if len(s.users(store.UserQuery{Org: "acme", ID: "ada"})) == 0 {
		s.insert(fullKey(s.addUser("acme", "ada"), 1))
	}
	u, k := s.user("acme", "ada"), s.key(newKey(&store.User{}, 1).ID)

	for what, change := range map[string]func(k *store.Key){
		"ID":     func(k *store.Key) { k.ID = bad },
		"Family": func(k *store.Key) { k.Family = bad },
		"Name":   func(k *store.Key) { k.Name = bad },
		"Scopes": func(k *store.Key) { k.Scopes = []string{"fine", bad} },
	} {
		given := newKey(u, 500)
		change(given)
		check(s.Store.InsertKey(s.ctx, given, nil, noCap), "InsertKey with a "+what)
		old := clone(k)
		old.RevokedAt = base
		check(s.Store.InsertKey(s.ctx, given, old, noCap), "InsertKey of a rotation with a "+what)
		s.absent(given, "a refused insertion")
	}
	for what, change := range map[string]func(k *store.Key){
		"Org":  func(k *store.Key) { k.Org = bad },
		"User": func(k *store.Key) { k.User = bad },
	} {
		given := newKey(u, 501)
		change(given)
		if err := s.Store.InsertKey(s.ctx, given, nil, noCap); err == nil {
			s.errorf("InsertKey with a %s of %s: no error", what, short(bad))
		}
		s.absent(given, "a refused insertion")
	}
	for what, change := range map[string]func(k *store.Key){
		"Name":   func(k *store.Key) { k.Name = bad },
		"Scopes": func(k *store.Key) { k.Scopes = []string{bad, "fine"} },
	} {
		given := clone(k)
		change(given)
		check(s.Store.UpdateKey(s.ctx, given), "UpdateKey with a "+what)
	}
	s.stored(k, "refused writes")

	for what, change := range map[string]func(u *store.User){
		"Email": func(u *store.User) { u.Email = bad },
		"Tier":  func(u *store.User) { u.Tier = bad },
	} {
		given := *u
		change(&given)
		check(s.Store.PutUser(s.ctx, &given), "PutUser with a "+what)
		given.ID, given.Version = "new", 0
		check(s.Store.PutUser(s.ctx, &given), "PutUser of a new user with a "+what)
	}
	check(s.Store.PutUser(s.ctx, &store.User{Org: "acme", ID: bad}), "PutUser with an ID")
	check(s.Store.PutUser(s.ctx, &store.User{Org: bad, ID: "new"}), "PutUser with an Org")
	s.same(s.user("acme", "ada"), u, "Users after refused writes")
	s.listsUsers(store.UserQuery{Org: "acme"}, "ada")
	check(s.Store.UpdateSettings(s.ctx, zeroSettings(bad)), "UpdateSettings with an Org")
	s.same(s.settings(bad), zeroSettings(bad), "Settings after refused writes")
}
