package ratelimit

import "errors"

// Validate reports everything that is wrong with the arguments that l, or what is inside
// of it, was made of, joined: what makes each of its Takes an error. Constructors of
// limiters return no error, so that they can be nested; a Guard calls Validate when it is
// made. It takes no unit and asks no counter.
//
// It calls the method "Validate() error" of l, which the limiters and counters of this
// module have, and those of others may. Of a limiter without one, and of a nil Limiter,
// it knows nothing and returns nil.
func Validate(l Limiter) error { return validate(l) }

// validate is Validate for counters and lenders, too.
func validate(v any) error {
	if v, ok := v.(interface{ Validate() error }); ok {
		return v.Validate()
	}
	return nil
}

// when returns err if something is wrong.
func when(wrong bool, err error) error {
	if wrong {
		return err
	}
	return nil
}

// Validate reports what is wrong with the arguments of [NewDaily], and with its Counter,
// as [Validate] does.
func (d *Daily) Validate() error {
	if d == nil || d.counter == nil {
		return d.unusable()
	}
	return nil
}

// Validate reports what is wrong with the arguments of [NewLeased], and with its Lender,
// as [Validate] does.
func (b *Leased) Validate() error {
	if b == nil || b.lender == nil {
		return b.unusable()
	}
	return nil
}

// Validate reports whether m was made by [NewMemory], as [Validate] does.
func (m *Memory) Validate() error { return when(m == nil || m.shards == nil, errNoMemory) }

func (b *burstLimiter) Validate() error { return b.err }

func (a all) Validate() error {
	errs := []error{when(len(a) == 0, errNoLimiter)}
	for _, l := range a {
		errs = append(errs, validate(l))
	}
	return errors.Join(errs...)
}
