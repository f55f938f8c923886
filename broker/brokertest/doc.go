// Package brokertest tests brokers, and helps to test what uses them.
//
// Run is a conformance suite: it checks that a broker keeps what package broker promises. Benchmark puts the same load on each
// broker. Memory is a broker in memory that fails on command.
//
// A broker's test looks like this:
//
//	type cluster struct{ server *myServer }
//
//	func (c cluster) Broker() broker.Broker { return &mybroker.Broker{Address: c.server.Address} }
//	func (c cluster) Stop()                 { c.server.Kill() }    // optional: see Stopper
//	func (c cluster) Start()                { c.server.Restart() }
//
//	func TestConformance(t *testing.T) {
//		brokertest.Run(t, func(t *testing.T) brokertest.Cluster {
//			return cluster{startServer(t)} // an empty log for each subtest; t.Cleanup removes it
//		})
//	}
//
// Each rule is a subtest, so that "go test -run Conformance/barrier" checks one.
package brokertest
