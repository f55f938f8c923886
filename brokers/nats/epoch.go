package nats

import (
	"context"
	"fmt"
)

// settleEpoch returns the epoch of the stream.
func (l *log) settleEpoch(ctx context.Context, info *streamInfo) (string, error) {
	epoch := info.Config.Metadata[metadataEpoch]
	if epoch == "" {
		return "", fmt.Errorf("the stream %s has no %s in its metadata: it was made by something else", info.Config.Name, metadataEpoch)
	}
	return epoch, nil
}
