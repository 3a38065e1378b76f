// All ops.
#pragma once

#include <opsin/ops/binary.h>
#include <opsin/ops/cat.h>
#include <opsin/ops/compare.h>
#include <opsin/ops/conv.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/einsum.h>
#include <opsin/ops/embedding.h>
#include <opsin/ops/grid_sample.h>
#include <opsin/ops/index.h>
#include <opsin/ops/interpolate.h>
#include <opsin/ops/loss.h>
#include <opsin/ops/matmul.h>
#include <opsin/ops/norm.h>
#include <opsin/ops/pad.h>
#include <opsin/ops/pool.h>
#include <opsin/ops/random.h>
#include <opsin/ops/rearrange.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/scan.h>
#include <opsin/ops/softmax.h>
#include <opsin/ops/sort.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>
