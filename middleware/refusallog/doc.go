// Package refusallog writes the requests that a Guard refuses to an audit trail,
// beside the acts of people that package keys writes there: a sample of them, since
// anybody can have as many requests refused as they like.
//
//	refusals, err := refusallog.New(sink, nil)
//	if err != nil { ... }
//	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{Observe: refusals.Observe})
//	...
//	err = refusals.Close(ctx) // when the server has shut down
//
// What is written are refusals with the statuses 400, 401 and 403: credentials that
// were not accepted, and callers who may not do what they asked for, such as keys
// that try to manage keys. Quotas (429) and failures (503) are matters of metrics.
// Requests that are let through cost a comparison.
//
// # What it does not do
//
// It is no access log, and no count of refusals per client. It slows nobody down.
// It never makes a request wait: a sink that is slow or fails loses lines, which are
// counted, and never requests.
package refusallog
