// Package brokertest helps to test brokers, and what uses them: Memory is a broker in memory that fails on command.
package brokertest
