// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"io"
	"os"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/config"
)

// DefaultSize is the volume's when neither a size nor an image is given, in
// bytes.
const DefaultSize = 512 << 20

const (
	// minimumSize has room for a file system with something in it.
	minimumSize = 32 << 20

	// maximumLedger bounds the blocks that the load writes to.
	maximumLedger = 8 << 20

	// ledgerShare: the load writes to one part in so many of the volume, as a
	// database that is busy in a few places.
	ledgerShare = 32

	// region and intents decide what a crash of the primary costs. The default
	// of 4096 regions is for volumes of many GiB; here a fraction of a small
	// volume is to be seen. One request may be block.MaxLength long and must
	// find intents for all of it.
	region  = config.DefaultRegion
	intents = block.MaxLength/region + maximumLedger/region
)

// layout divides the volume: the image at its begin, the ledger at its end.
type layout struct {
	size   int64 // bytes of the volume
	image  int64 // bytes for the image
	ledger int64 // bytes of the ledger
}

func divide(size int64) layout {
	ledger := min(size/ledgerShare, maximumLedger) / block.Size * block.Size
	return layout{size: size, image: size - ledger, ledger: ledger}
}

// mayDiffer is the most that a resync may copy, in bytes: what the load can have
// written, and what intents can stand for.
func (l layout) mayDiffer() int64 { return min(l.ledger+intents*region, l.size) }

// plan finds a layout for the user's wishes.
func plan(image string, size int64) (layout, error) {
	if size != 0 && size < minimumSize {
		return layout{}, &control.Refusal{
			Message: fmt.Sprintf("--size %s is too small", config.FormatSize(size)),
			Hint:    "at least " + config.FormatSize(minimumSize),
		}
	}
	if size%block.Size != 0 {
		return layout{}, &control.Refusal{
			Message: fmt.Sprintf("--size %s is no multiple of 4KiB", config.FormatSize(size)),
			Hint:    "say for example " + config.FormatSize(DefaultSize),
		}
	}
	if image == "" {
		if size == 0 {
			size = DefaultSize
		}
		return divide(size), nil
	}
	need, err := imageSize(image)
	if err != nil {
		return layout{}, &control.Refusal{Message: fmt.Sprintf("read image: %v", err), Hint: "--image takes a file or a block device with data"}
	}
	least := max(need+maximumLedger, minimumSize)
	least = (least + 1<<20 - 1) >> 20 << 20
	if size == 0 {
		size = max(least, DefaultSize)
	}
	l := divide(size)
	if l.image < need {
		return layout{}, &control.Refusal{
			Message: fmt.Sprintf("the image has %s; a volume of %s leaves %s for it", bytesText(need), config.FormatSize(size), bytesText(l.image)),
			Hint:    fmt.Sprintf("say --size %s, or nothing", config.FormatSize(least)),
		}
	}
	return l, nil
}

// imageSize is the length of a file or block device, in bytes.
func imageSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() && info.Mode().Type() != os.ModeDevice {
		return 0, fmt.Errorf("%s is neither a file nor a block device", path)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && size == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	return size, err
}
