package nl

// InterruptDumps has each dump taken for interrupted as long as f says so.
func (c *Conn) InterruptDumps(f func() bool) { c.intr = f }
