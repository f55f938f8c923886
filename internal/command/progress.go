package command

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// addProgress adds the flag of commands that take long.
func addProgress(cmd *cobra.Command) {
	cmd.Flags().Bool("progress", false, "Print a line per second on the standard error (default: if it is a terminal)")
}

// showsProgress reports whether a command shows its progress: to a person, or where it is asked to.
func showsProgress(cmd *cobra.Command) bool {
	if flag := cmd.Flag("progress"); flag.Changed {
		return flag.Value.String() == "true"
	}
	f, ok := cmd.ErrOrStderr().(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// showProgress prints a line every second until done is called. Lines and not one that is overwritten, so that they can be
// kept in a file. An empty line is left out.
func showProgress(cmd *cobra.Command, line func() string) (done func()) {
	if !showsProgress(cmd) {
		return func() {}
	}
	ended, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		began, tick := time.Now(), time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if text := line(); text != "" {
					fmt.Fprintf(cmd.ErrOrStderr(), "%3.0f s  %s\n", time.Since(began).Seconds(), text)
				}
			case <-ended:
				return
			}
		}
	}()
	return func() {
		close(ended)
		<-stopped // or a line could be printed after the result
	}
}
