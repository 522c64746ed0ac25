package ratelimit

import "errors"

// Validate reports everything that was wrong with the arguments l was made of, joined:
// what makes each of its Takes an error. The constructors of this package return no
// error, so that limiters can be nested; a Guard calls Validate when it is made. It looks
// at limiters and counters of this package, and at those inside of them; of others, and
// of a nil Limiter, it knows nothing and returns nil. It takes no unit and asks no
// counter.
func Validate(l Limiter) error { return problems(l) }

// problems returns what is wrong with a limiter or counter of this package.
func problems(v any) error {
	if v, ok := v.(interface{ problems() error }); ok {
		return v.problems()
	}
	return nil
}

// when returns err if it is true.
func when(wrong bool, err error) error {
	if wrong {
		return err
	}
	return nil
}

func (d *Daily) problems() error {
	if d == nil || d.counter == nil {
		return d.unusable()
	}
	return nil
}

func (b *Leased) problems() error {
	if b == nil || b.lender == nil {
		return b.unusable()
	}
	return nil
}

func (m *Memory) problems() error { return when(m == nil || m.shards == nil, errNoMemory) }

func (b *burstLimiter) problems() error { return b.err }

func (a all) problems() error {
	errs := []error{when(len(a) == 0, errNoLimiter)}
	for _, l := range a {
		errs = append(errs, problems(l))
	}
	return errors.Join(errs...)
}
