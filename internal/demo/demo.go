// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/twinbd/twinbd/control"
)

// Options are what the user may say.
type Options struct {
	Binary string // the program, which the demo runs as nodes and witness
	Dir    string // below it the demo makes its own directory; empty: the system's place for temporary files
	Image  string // file or device to copy in; empty: a file system is built
	Size   int64  // bytes of the volume; 0: DefaultSize, or more when Image needs it
	Keep   bool   // leave the pair running at the end
	Out    io.Writer
}

// demo is one run of the story.
type demo struct {
	Options
	story  *story
	dir    string
	layout layout
	pair   *pair
	image  *image
	ledger *ledger
	rows   []row // of the summary
}

// steps are the story, in its order.
var steps = []func(*demo, context.Context) error{
	(*demo).build,
	(*demo).serve,
	(*demo).copyIn,
	(*demo).loseSecondary,
	(*demo).losePrimary,
	(*demo).switchOver,
	(*demo).loseBoth,
	(*demo).summary,
}

// Run tells the whole story. It returns when everything that it started has
// ended and everything that it made is removed, unless Keep says otherwise.
// When something went wrong while the nodes ran, their directory is left to be
// looked at. Refusals carry a remedy (control.Refuse).
func Run(ctx context.Context, o Options) error {
	d, err := prepare(o)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if err = step(d, ctx); err != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return errors.Join(interrupted, d.remove())
	}
	if err != nil {
		return d.failed(err)
	}
	if o.Keep {
		d.howToPlay()
		return nil
	}
	return d.remove()
}

var interrupted = &control.Refusal{Message: "interrupted: the nodes were stopped and their files removed"}

// prepare checks what the user said and makes the directory.
func prepare(o Options) (*demo, error) {
	d := &demo{Options: o, story: &story{out: o.Out, began: time.Now()}}
	var err error
	if d.layout, err = plan(o.Image, o.Size); err != nil {
		return nil, err
	}
	if d.dir, err = os.MkdirTemp(o.Dir, "twinbd-demo-"); err == nil {
		d.dir, err = filepath.Abs(d.dir)
	}
	if err != nil {
		return nil, &control.Refusal{
			Message: fmt.Sprintf("make a directory: %v", err),
			Hint:    "say --dir DIR, an existing directory that can be written",
		}
	}
	if d.pair, err = newPair(d.Binary, d.dir, d.layout, o.Keep); err != nil {
		return nil, errors.Join(err, os.RemoveAll(d.dir))
	}
	d.ledger = newLedger(d.layout)
	return d, nil
}

// failed ends what runs and leaves the files, when there is anything to see.
func (d *demo) failed(err error) error {
	ran := d.pair.witness != nil
	err = errors.Join(err, d.pair.stop())
	if !ran {
		return errors.Join(err, os.RemoveAll(d.dir))
	}
	r := control.Refuse(err)
	hint := fmt.Sprintf("the nodes were stopped; their disks and logs are in %s", d.dir)
	if r.Hint != "" {
		hint = r.Hint + "; " + hint
	}
	return &control.Refusal{Message: r.Message, Hint: hint}
}

// remove ends what runs and removes what was made.
func (d *demo) remove() error {
	return errors.Join(d.pair.stop(), os.RemoveAll(d.dir))
}

// howToPlay says what can be done with the pair, and how to end it.
func (d *demo) howToPlay() {
	p := d.pair
	d.story.say("")
	d.story.say("The pair is left running. To play with it:")
	d.story.say("  %s", p.primary.commandLine("status"))
	d.story.say("  %s", p.secondary.commandLine("status", "--watch"))
	d.story.say("  nbdinfo '%s'", p.primary.uri())
	d.story.say("  nbdcopy '%s' copy.img", p.primary.uri())
	d.story.say("  kill -9 %d    # %s, which serves: %s takes over", p.primary.process.pid(), p.primary.name, p.secondary.name)
	d.story.say("  %s    # what was killed: it follows", p.primary.commandLine("serve"))
	d.story.say("  %s    # and back again", p.secondary.commandLine("switch", serviceName))
	d.story.say("What the three say is in %s/*.log. To end it:", d.dir)
	d.story.say("  kill %d %d %d; rm -r %s", p.primary.process.pid(), p.secondary.process.pid(), p.witness.pid(), d.dir)
}
