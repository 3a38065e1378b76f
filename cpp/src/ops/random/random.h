// What the files of the random ops share.
#pragma once

#include <opsin/device.h>
#include <opsin/random.h>

namespace opsin {

class Registry;

/// `generator`, or the default one of `device`; Error if it belongs to another type of device.
Generator& generator_for(Device device, Generator* generator);

void register_multinomial(Registry& registry);
void register_dropout(Registry& registry);

}  // namespace opsin
