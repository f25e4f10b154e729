// SPDX-License-Identifier: GPL-2.0
/*
 * An I2C bus for tests/image/card/csi.py, never in an image: whatever is asked for on it answers, as
 * 64 KiB of registers with 16-bit addresses, that can be written and read back. What they hold at
 * the start is in the device tree: registers = <address value>, ... of two bytes each.
 */
#include <linux/i2c.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/platform_device.h>
#include <linux/slab.h>

#define SIZE 0x10000

struct test_bus {
	struct i2c_adapter adapter;
	u8 *registers;
	u16 at;
};

static int test_bus_transfer(struct i2c_adapter *adapter, struct i2c_msg *messages, int number)
{
	struct test_bus *bus = i2c_get_adapdata(adapter);
	int i, byte;

	for (i = 0; i < number; i++) {
		struct i2c_msg *message = &messages[i];

		if (message->flags & I2C_M_RD) {
			for (byte = 0; byte < message->len; byte++)
				message->buf[byte] = bus->registers[bus->at++];
			continue;
		}
		if (message->len < 2)
			return -EIO;
		bus->at = message->buf[0] << 8 | message->buf[1];
		for (byte = 2; byte < message->len; byte++)
			bus->registers[bus->at++] = message->buf[byte];
	}
	return number;
}

static u32 test_bus_can(struct i2c_adapter *adapter)
{
	return I2C_FUNC_I2C;
}

static const struct i2c_algorithm test_bus_algorithm = {
	.xfer = test_bus_transfer,
	.functionality = test_bus_can,
};

static void test_bus_fill(struct test_bus *bus, struct device_node *node)
{
	u32 address, value;
	int i;

	for (i = 0; !of_property_read_u32_index(node, "registers", i, &address) &&
		    !of_property_read_u32_index(node, "registers", i + 1, &value); i += 2) {
		bus->registers[(u16)address] = value >> 8;
		bus->registers[(u16)(address + 1)] = value;
	}
}

static int test_bus_probe(struct platform_device *device)
{
	struct test_bus *bus = devm_kzalloc(&device->dev, sizeof(*bus), GFP_KERNEL);

	if (!bus)
		return -ENOMEM;
	bus->registers = devm_kzalloc(&device->dev, SIZE, GFP_KERNEL);
	if (!bus->registers)
		return -ENOMEM;
	test_bus_fill(bus, device->dev.of_node);
	bus->adapter.owner = THIS_MODULE;
	bus->adapter.algo = &test_bus_algorithm;
	bus->adapter.dev.parent = &device->dev;
	bus->adapter.dev.of_node = device->dev.of_node;
	strscpy(bus->adapter.name, "picket test bus", sizeof(bus->adapter.name));
	i2c_set_adapdata(&bus->adapter, bus);
	return devm_i2c_add_adapter(&device->dev, &bus->adapter);
}

static const struct of_device_id test_bus_match[] = {
	{ .compatible = "picket,test-bus" },
	{ }
};
MODULE_DEVICE_TABLE(of, test_bus_match);

static struct platform_driver test_bus_driver = {
	.probe = test_bus_probe,
	.driver = { .name = "picket-test-bus", .of_match_table = test_bus_match },
};
module_platform_driver(test_bus_driver);

MODULE_DESCRIPTION("An I2C bus that answers, for tests");
MODULE_LICENSE("GPL");
