// Everything a program that embeds the engine needs.
#pragma once

#include <opsin/autocast.h>
#include <opsin/autograd.h>
#include <opsin/dtype.h>
#include <opsin/error.h>
#include <opsin/io.h>
#include <opsin/ops.h>
#include <opsin/optim.h>
#include <opsin/profiler.h>
#include <opsin/tensor.h>
