package broadcast

// Protocols is the list of protocols that clients of a route can speak.
var Protocols = &protocols
