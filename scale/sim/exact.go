package sim

type exact struct{ *fluid }

func newExact(conf Config, seed uint64) *exact { return &exact{newFluid(conf)} }
